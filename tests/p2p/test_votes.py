"""An acceptor's votes on disk: what a peer that dies in between finds when it starts again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from p2p.votes import VoteStore

VOTES = {f"job/{number}": b"a promise" for number in range(3)}


class Killed(BaseException):
    """The process dies here."""


def dying(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> None:
    """Let so many calls of a function of `os` succeed; the next one is the process's last."""
    real = getattr(os, name)
    left = calls

    def once_more(*args: Any, **options: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return real(*args, **options)

    monkeypatch.setattr(os, name, once_more)


@pytest.mark.parametrize("call", ["unlink", "fsync", "rename"])
@pytest.mark.parametrize("calls", range(len(VOTES) + 1))
def test_who_dies_while_it_begins_anew_never_comes_back_as_the_same_acceptor_with_fewer_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, calls: int
) -> None:
    store = VoteStore(str(tmp_path))
    for key, vote in VOTES.items():
        store.save(key, vote)
    before = store.disk
    dying(monkeypatch, call, calls)
    try:
        store.begin_anew()
    except Killed:
        pass
    monkeypatch.undo()
    found = VoteStore(str(tmp_path))
    if found.disk == before:
        assert found.load() == VOTES
    else:
        assert found.load() == {}


def test_votes_begun_anew_are_another_acceptors_and_none(tmp_path: Path) -> None:
    store = VoteStore(str(tmp_path))
    store.save("job/1", b"a promise")
    before = store.disk
    store.begin_anew()
    assert store.disk != before
    assert store.load() == {}
    assert VoteStore(str(tmp_path)).disk == store.disk
