"""What a task may say of itself: texts that every wire carries, and no more of anything than a record holds.

User code decides how long a traceback is, what a counter is called, how many cuts a part has.  But a message
that cannot be sent is never heard, however often it is said again, and a record that cannot be read back
stops every peer that reads it.  So an attempt's news are bounded where they first become a message: texts are
shortened, and what cannot be shortened fails the attempt, with a line that says what there is too much of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mapreduce.context import MAX_COUNTER_CHARS, MAX_COUNTERS, can_name_a_counter
from mapreduce.effects import TaskOutput
from mapreduce.messages import Done
from mapreduce.outcome import Failure
from mapreduce.spec import MAX_TASKS, PackedColumn

__all__ = [
    "MAX_DETAILS_CHARS",
    "MAX_DONE_IN_MESSAGE",
    "MAX_MESSAGE_CHARS",
    "in_messages",
    "plain",
    "told",
    "too_much_of",
]

MAX_MESSAGE_CHARS = 16 << 10
MAX_DETAILS_CHARS = 64 << 10
# Both well below what a frame holds (`p2p.wire`): of one attempt's news, and where several share a message.
MAX_NEWS_BYTES = 768 << 10
MAX_REPORT_BYTES = 256 << 10
MAX_DONE_IN_MESSAGE = 512
# Of what is said of an attempt in any case, and of a whole number.
BASE_BYTES, NUMBER_BYTES = 256, 9


def plain(text: str, most_chars: int) -> str:
    """Return the beginning of a text, with half characters (of file names that are no text) written out."""
    shown = text[:most_chars]
    try:
        shown.encode()
    except UnicodeEncodeError:
        return shown.encode("utf-8", "backslashreplace").decode()[:most_chars]
    return shown


def told(failure: Failure) -> Failure:
    """Return a failure as it can be sent and recorded; of a long traceback the end, which says most."""
    return replace(
        failure,
        message=plain(failure.message, MAX_MESSAGE_CHARS),
        details=plain(failure.details[-MAX_DETAILS_CHARS:], MAX_DETAILS_CHARS),
        position=plain(failure.position, MAX_MESSAGE_CHARS),
    )


def too_much_of(output: TaskOutput) -> str:
    """Return what there is too much of in an attempt's news, as one line; "" where they can be told."""
    if len(output.counters) > MAX_COUNTERS:
        return f"it counts under {len(output.counters):,} names, at most {MAX_COUNTERS:,} are possible"
    if not all(can_name_a_counter(name) for name, _ in output.counters):
        return f"the name of a counter is no text of at most {MAX_COUNTER_CHARS} characters"
    if len(output.cuts) > MAX_TASKS:
        return (
            f"its part would fall into {len(output.cuts) - 1:,} splits, at most {MAX_TASKS - 1:,} are "
            "possible: choose larger splits (--split-size)"
        )
    news_bytes = _weight((name for name, _ in output.counters), output.cuts, output.sample)
    if news_bytes > MAX_NEWS_BYTES:
        return (
            f"what is to be told of it (counters, sampled keys) takes {news_bytes:,} bytes, at most "
            f"{MAX_NEWS_BYTES:,} are possible"
        )
    return ""


def in_messages(items: Iterable[Done]) -> Iterator[tuple[Done, ...]]:
    """Yield finished attempts in groups of which each fits into one message."""
    batch: list[Done] = []
    size_bytes = 0
    for item in items:
        weight_bytes = _weight(item.counters, item.cuts, item.sample)
        if batch and (len(batch) >= MAX_DONE_IN_MESSAGE or size_bytes + weight_bytes > MAX_REPORT_BYTES):
            yield tuple(batch)
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += weight_bytes
    if batch:
        yield tuple(batch)


def _weight(counters: Iterable[str], cuts: Sequence[int], sample: PackedColumn | None) -> int:
    """How many bytes this takes at the most."""
    names_bytes = sum(4 * len(name) + 2 * NUMBER_BYTES for name in counters)
    sample_bytes = 0 if sample is None else len(sample.data)
    return BASE_BYTES + names_bytes + NUMBER_BYTES * len(cuts) + sample_bytes
