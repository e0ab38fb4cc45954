"""Records through two shuffles one after another: every id that goes in comes out once.

A task of the second step that runs again must see the rows of the first in the same order as before;
elsewhere, where it does not, rows were lost (a repartition by position after a shuffle whose order was that
of arrival).  The input is a line a record, its id; the first step deals ids to keys by their hash, the
second gathers each by itself.
"""

from collections.abc import Iterable, Iterator
from zlib import crc32

from mapreduce import Job, Step, batch, identity

GROUPS = 5_000


@batch("bytes")
def dealt(chunk: bytes) -> Iterator[tuple[int, bytes]]:
    for record in chunk.split():
        yield crc32(record) % GROUPS, record


def numbered(group: int, records: Iterable[bytes]) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """A record goes on by its place in its group, which an order of arrival would change."""
    for place, record in enumerate(records):
        yield (group * 7 + place) % GROUPS, (group, record)


def again(key: int, row: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
    yield key, row[1]


def job(partitions: int = 200) -> Job:
    steps = {
        "deal": Step(mapper=dealt, reducer=numbered, partitions=partitions),
        "again": Step(mapper=again, reducer=identity, partitions=partitions, after=("deal",)),
    }
    return Job(steps=steps, name="two_shuffles")
