"""Specs that come in chunks: what counts, and what goes when there are too many."""

from __future__ import annotations

import pytest

from p2p import job_questions as q
from p2p.uploads import MAX_UPLOAD_BYTES, MAX_UPLOADS, UPLOAD_IDLE_S, Uploads

DATA = b"0123456789"


def take(uploads: Uploads, offset: int, length: int, *, name: str = "x", now: float = 0.0) -> int:
    """Send some of the data; gives how far the upload is."""
    chunk = q.Upload(
        number=1, upload=name, offset=offset, size_bytes=len(DATA), data=DATA[offset : offset + length]
    )
    answer = uploads.take(chunk, now)
    assert (answer.number, answer.upload) == (1, name)
    return answer.received


def test_chunks_that_are_doubled_late_or_lost_change_nothing_but_the_way() -> None:
    uploads = Uploads()
    assert [take(uploads, offset, 4) for offset in (0, 0, 8, 4, 0, 4)] == [4, 4, 4, 8, 8, 8]
    assert uploads.whole("x") is None
    assert take(uploads, 8, 2) == 10
    assert uploads.whole("x") == DATA


def test_an_upload_that_nobody_has_begun_begins_at_its_beginning() -> None:
    assert take(Uploads(), 4, 4) == 0


@pytest.mark.parametrize("size", [len(DATA) - 1, MAX_UPLOAD_BYTES + 1])
def test_more_than_was_announced_or_than_is_allowed_is_not_taken(size: int) -> None:
    uploads = Uploads()
    assert (
        uploads.take(q.Upload(number=1, upload="x", offset=0, size_bytes=size, data=DATA), 0.0).received == 0
    )
    assert uploads.whole("x") is None


def test_of_too_many_uploads_the_one_that_was_silent_for_longest_goes() -> None:
    uploads = Uploads()
    for number in range(MAX_UPLOADS):
        take(uploads, 0, 4, name=f"{number}")
    assert take(uploads, 4, 4, name="0") == 8
    take(uploads, 0, 4, name="one more")
    assert take(uploads, 8, 2, name="0") == 10
    assert take(uploads, 4, 4, name="1") == 0


def test_an_upload_with_which_nobody_goes_on_is_dropped() -> None:
    uploads = Uploads()
    take(uploads, 0, 10, name="left", now=0.0)
    take(uploads, 0, 4, name="going on", now=0.0)
    take(uploads, 4, 4, name="going on", now=UPLOAD_IDLE_S)
    uploads.tick(UPLOAD_IDLE_S + 1.0)
    assert uploads.whole("left") is None
    assert take(uploads, 8, 2, name="going on", now=UPLOAD_IDLE_S + 1.0) == 10
