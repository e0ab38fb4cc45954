"""A job on this machine's cores gives what one process would give, whatever the workers and the splits.

The same bytes for every number of workers, every size of split and every amount of memory; from files, from
standard input, from nothing.

User code stands inside the tests: so it travels to the children by value, and they need not import this.
"""

from __future__ import annotations

import io
import os
import sys
from itertools import chain
from typing import Any

import pytest

from mapreduce import Job, Step, Text, task
from mapreduce.errors import InputError
from mapreduce.local import MIN_MEMORY_BYTES
from tests.mapreduce.conftest import COUNTS, KIB, TEXT, Place, ones, totals, words

# --- the same bytes ------------------------------------------------------------------------------------


def order_sensitive() -> Job:
    """Make a job whose output shows the order and the bracketing of all it did."""

    def mapper(line: str) -> Any:
        for place, word in enumerate(line.split()):
            yield word, (place + 0.1) / 3 * 10 ** (len(line) % 9)

    def add(word: str, numbers: Any) -> Any:
        yield word, sum(numbers)

    def reducer(word: str, numbers: Any) -> Any:
        some = list(numbers)
        yield word, [sum(some), some]

    return Job(mapper, reducer, combiner=add)


@pytest.mark.parametrize("partitions", [1, 13])
@pytest.mark.parametrize("split_bytes", [KIB, 3000, 32 << 20])
def test_the_number_of_workers_cannot_be_seen_in_the_output(
    place: Place, partitions: int, split_bytes: int
) -> None:
    path = place.write("text.txt", TEXT)
    by_workers = [
        place.parts(order_sensitive(), path, workers=workers, partitions=partitions, split_bytes=split_bytes)
        for workers in (1, 2, 7)
    ]
    assert by_workers[0] == by_workers[1] == by_workers[2]
    assert sorted(by_workers[0]) == ["_SUCCESS", *(f"part-{number:05d}" for number in range(partitions))]


def test_counts_are_the_same_for_every_split_size_and_agree_with_a_counter(place: Place) -> None:
    path = place.write("text.txt", TEXT)
    expected = "".join(f"{word}\t{COUNTS[word]}\n" for word in sorted(COUNTS)).encode()
    for split_bytes in (100, KIB, 5000, 32 << 20):
        parts = place.parts(
            Job(words(), totals(), combiner=totals()), path, split_bytes=split_bytes, workers=2
        )
        assert parts == {"_SUCCESS": b"", "part-00000": expected}


def test_parts_hold_each_key_once_and_in_key_order(place: Place) -> None:
    path = place.write("text.txt", TEXT)
    parts = place.parts(Job(words(), totals()), path, partitions=5, split_bytes=KIB)
    rows = [[line.split("\t") for line in part.decode().splitlines()] for part in parts.values()]
    for part in rows:
        assert part == sorted(part)
    found = {word: int(count) for word, count in chain.from_iterable(rows)}
    assert found == COUNTS
    assert sum(map(len, rows)) == len(COUNTS)
    assert sum(map(bool, rows)) == 5, "the keys are spread"


def test_values_come_in_the_order_of_the_input(place: Place) -> None:
    path = place.lines(*(f"{number % 3} {number}" for number in range(200)))

    def mapper(line: str) -> Any:
        key, number = line.split()
        yield int(key), int(number)

    job = Job(mapper, lambda key, numbers: [(key, list(numbers))])
    outcome = place.run(job, path, split_bytes=50, workers=3)
    assert outcome.pairs == [(key, list(range(key, 200, 3))) for key in range(3)]


def test_several_inputs_are_read_in_the_order_given(place: Place) -> None:
    paths = [place.write(name, f"{name}\n") for name in ("b.txt", "a.txt", "c.txt")]
    job = Job(lambda line: [(None, (line, task.input_path))], lambda key, values: [(key, list(values))])
    ((_, values),) = place.run(job, *paths, paths[0], workers=2).pairs
    assert values == [(os.path.basename(path), path) for path in [*paths, paths[0]]]


def test_sets_of_strings_iterate_alike_in_every_process(place: Place) -> None:
    path = place.write("text.txt", TEXT)
    job = Job(lambda line: [(tuple(set(line.split())), 1)])
    first, second = (place.run(job, path, split_bytes=KIB, workers=workers).pairs for workers in (1, 4))
    assert first == second


def test_a_job_that_spills_gives_the_same_bytes(place: Place) -> None:
    ballast: list[bytes] = []

    def setup() -> None:
        if task.task_id == "map-00000":
            ballast.append(b"x" * (150 << 20))  # so the task is short of memory from the start

    def mapper(line: str) -> Any:
        start = int(line)
        for number in range(start, start + 1000):
            yield f"key {number * 7919 % 90_000:05}", number / 7

    path = place.lines(*(str(start) for start in range(0, 100_000, 1000)))
    outcomes = [
        place.run(Job(mapper, totals(), setup=setup, teardown=ballast.clear), path, memory_bytes=memory_bytes)
        for memory_bytes in (MIN_MEMORY_BYTES, 4 << 30)
    ]
    assert [outcome.report["spilled_bytes"] > 0 for outcome in outcomes] == [True, False]
    assert outcomes[0].pairs == outcomes[1].pairs
    assert len(outcomes[0].pairs) == 90_000
    assert outcomes[0].report["peak_task_memory_bytes"] < MIN_MEMORY_BYTES


# --- inputs --------------------------------------------------------------------------------------------


def test_an_empty_input_is_a_job_with_an_empty_result(place: Place) -> None:
    path = place.write("empty.txt", "")
    assert place.run(Job(words(), totals()), path, partitions=3).pairs == []
    assert place.run(Job(words()), path).pairs == []
    parts = place.parts(Job(words(), totals(), combiner=totals()), path, partitions=2)
    assert parts == {"_SUCCESS": b"", "part-00000": b"", "part-00001": b""}
    steps = {"a": Step(mapper=words(), reducer=totals()), "b": Step(reducer=totals(), after=("a",))}
    assert place.run(Job(steps=steps), path).pairs == []


def test_empty_files_among_others_change_nothing(place: Place) -> None:
    full, empty = place.write("full.txt", TEXT), place.write("empty.txt", "")
    job = Job(words(), totals())
    assert place.run(job, empty, full, empty).pairs == place.run(job, full).pairs


def test_standard_input_is_read_like_a_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    outcome = place.run(Job(words(), totals()), "-", split_bytes=KIB, workers=2)
    assert dict(outcome.pairs) == COUNTS
    assert outcome.report["map_tasks"] > 3
    assert outcome.report["input_bytes"] == len(TEXT)


def test_a_standard_input_that_is_closed_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    for stdin in (None, closed):
        monkeypatch.setattr(sys, "stdin", stdin)
        error = place.failure(Job(words(), totals()), "-")
        assert isinstance(error, InputError)
        assert str(error) == "-: standard input is closed; pipe something into it, or name a file"


def test_a_line_is_read_once_wherever_the_splits_fall(place: Place) -> None:
    path = place.write("ends.txt", b"one\r\ntwo\rthree\n\n\r\nfour")
    expected = ["one", "two", "three", "", "", "four"]
    for split_bytes in (1, 3, 7):
        outcome = place.run(Job(lambda line: [(line, None)]), path, split_bytes=split_bytes, workers=1)
        assert [line for line, _ in outcome.pairs] == expected, split_bytes


def test_another_encoding_is_read(place: Place) -> None:
    path = place.write("latin.txt", "Straße\nGröße\n".encode("latin-1"))
    job = Job(ones(), totals(), reader=Text("latin-1"))
    assert place.run(job, path).pairs == [("Größe", 1), ("Straße", 1)]
