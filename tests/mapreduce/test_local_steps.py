"""What a step does with its records, and how steps follow each other, embedded.

A step may lack a reducer, take batches, sort values, or put all its parts in one order; steps form a graph,
and between them every key and value stays what it is.

User code stands inside the tests: so it travels to the children by value, and they need not import this.
"""

from __future__ import annotations

import functools
from collections import Counter
from random import Random
from typing import Any

import pytest

from mapreduce import FixedLength, Job, Pairs, Step, TotalOrder, batch, identity, task
from tests.mapreduce.conftest import COUNTS, KIB, TEXT, Place, ones, totals, words

# --- kinds of steps ------------------------------------------------------------------------------------


def test_a_step_without_a_reducer_keeps_the_order_of_the_input(place: Place) -> None:
    path = place.write("text.txt", TEXT)
    outcome = place.run(Job(lambda line: [(line, len(line))]), path, split_bytes=KIB, workers=2)
    assert outcome.pairs == [(line, len(line)) for line in TEXT.splitlines()]
    assert outcome.report["reduce_tasks"] == 0
    assert outcome.report["map_tasks"] > 3
    assert outcome.report["shuffle_bytes"] == 0


def test_the_identity_reducer_sorts_by_key_and_leaves_the_rest(place: Place) -> None:
    lines = [f"{Random(number).randint(0, 50):02} {number}" for number in range(300)]
    job = Job(lambda line: [tuple(line.split())], identity)
    outcome = place.run(job, place.lines(*lines), split_bytes=500, workers=2)
    assert outcome.pairs == sorted((tuple(line.split()) for line in lines), key=lambda pair: pair[0])


def test_a_generator_a_list_or_nothing_may_be_given(place: Place) -> None:
    def mapper(line: str) -> Any:
        if line == "nothing":
            return None
        if line == "list":
            return [("list", 1), ["pair as a list", 2]]
        return (("generator", number) for number in range(2))

    def reducer(key: str, values: Any) -> Any:
        return None if key == "list" else iter([(key, sum(values))])

    outcome = place.run(Job(mapper, reducer), place.lines("nothing", "list", "else"))
    assert outcome.pairs == [("generator", 1), ("pair as a list", 2)]


def test_whatever_can_be_called_serves_as_a_function(place: Place) -> None:
    class Counting:
        def __init__(self, step: int) -> None:
            self.step = step

        def __call__(self, line: str) -> Any:
            yield line, self.step

        def total(self, key: str, values: Any) -> Any:
            yield key, sum(values)

    def scaled(factor: int, key: str, values: Any) -> Any:
        yield key, factor * sum(values)

    path = place.lines("a", "b", "a")
    assert place.run(Job(Counting(2), Counting(0).total), path).pairs == [("a", 4), ("b", 2)]
    assert place.run(Job(ones(), functools.partial(scaled, 10)), path).pairs == [("a", 20), ("b", 10)]


def test_values_are_sorted_within_their_keys(place: Place) -> None:
    path = place.lines(*(f"{number % 2} {number * 37 % 101 - 50}" for number in range(101)))

    def mapper(line: str) -> Any:
        key, number = line.split()
        yield key, int(number)

    def run(order: Any) -> dict[str, list[int]]:
        job = Job(mapper, lambda key, values: [(key, list(values))], sort_values=order)
        return dict(place.run(job, path, split_bytes=100, workers=2).pairs)

    unsorted = run(False)
    assert run(True) == {key: sorted(values) for key, values in unsorted.items()}
    assert run(lambda value: -value) == {key: sorted(values)[::-1] for key, values in unsorted.items()}
    # Python's sort is stable, and so is this one: equal values keep the order in which they came.
    assert run(abs) == {key: sorted(values, key=abs) for key, values in unsorted.items()}


def test_values_of_all_types_can_be_sorted(place: Place) -> None:
    mixed = [("t", 2), "text", 3, None, 2.5, [1, 2], b"bytes", True, -1, [1, "x"]]
    job = Job(
        lambda line: [(None, value) for value in mixed],
        lambda key, values: [(key, list(values))],
        sort_values=True,
    )
    ((_, values),) = place.run(job, place.lines("once")).pairs
    assert values == [None, True, -1, 3, 2.5, "text", b"bytes", [1, 2], [1, "x"], ("t", 2)]


@pytest.mark.parametrize("kind", ["records", "split", "text", "bytes"])
def test_a_batch_mapper_counts_what_a_mapper_counts(place: Place, kind: str) -> None:
    def of_records(lines: list[str]) -> Any:
        return Counter(word for line in lines for word in line.split()).items()

    def of_text(text: str) -> Any:
        yield from Counter(text.split()).items()

    def of_bytes(data: bytes) -> Any:
        return Counter(word.decode() for word in data.split())

    mapper = {"records": of_records, "split": of_records, "text": of_text, "bytes": of_bytes}[kind]
    path = place.write("text.txt", TEXT)
    outcome = place.run(Job(batch(kind)(mapper), totals()), path, split_bytes=KIB, workers=2)
    assert dict(outcome.pairs) == COUNTS


def test_a_reader_of_the_job_is_used(place: Place) -> None:
    path = place.write("records.bin", b"".join(b"%03d" % (number % 7) for number in range(100)))
    job = Job(lambda record: [(int(record), 1)], totals(), reader=FixedLength(3))
    counts = Counter(number % 7 for number in range(100))
    assert place.run(job, path, split_bytes=50, workers=2).pairs == sorted(counts.items())


# --- several steps -------------------------------------------------------------------------------------


def test_steps_form_a_graph(place: Place) -> None:
    """Numbers are split into even and odd ones, which are treated apart and come together again."""

    def parity(wanted: int, line: str) -> Any:
        if int(line) % 2 == wanted:
            yield int(line) % 10, int(line)

    def largest(key: int, numbers: Any) -> Any:
        yield key, max(numbers)

    job = Job(
        steps={
            "end": Step(
                mapper=lambda key, value: [("even" if key % 2 == 0 else "odd", value)],
                reducer=lambda key, values: [(key, list(values))],
                after=("odd", "even"),
            ),
            "even": Step(mapper=functools.partial(parity, 0), reducer=totals(), partitions=3),
            "odd": Step(mapper=functools.partial(parity, 1), reducer=largest, partitions=2),
        }
    )
    path = place.lines(*map(str, range(100)))
    for workers in (1, 3):
        outcome = place.run(job, path, split_bytes=64, workers=workers)
        even, odd = dict(outcome.pairs)["even"], dict(outcome.pairs)["odd"]
        assert sorted(even) == [sum(range(key, 100, 10)) for key in (0, 2, 4, 6, 8)]
        assert sorted(odd) == [91, 93, 95, 97, 99]


def test_one_job_follows_another_and_gives_what_two_runs_give(place: Place) -> None:
    count = Job(words(), totals(), name="count")
    by_length = Job(lambda word, count: [(len(word), count)], totals(), reader=Pairs(), name="lengths")
    path = place.write("text.txt", TEXT)
    together = place.run(count.then(by_length), path, split_bytes=KIB, partitions=3).pairs
    output = str(place.root / "between")
    count.run(path, output=output, out_format="msgpack", temp_dir=str(place.temp)).close()
    assert sorted(together) == sorted(place.run(by_length, output).pairs)
    expected: Counter[int] = Counter()
    for word, number in COUNTS.items():
        expected[len(word)] += number
    assert dict(together) == expected


def test_a_later_step_reads_splits_of_the_size_asked_for(place: Place) -> None:
    steps = {
        "first": Step(mapper=lambda line: [(line, line * 20)], reducer=identity, partitions=2),
        "second": Step(mapper=lambda key, value: [(key, task.task_id)], after=("first",)),
    }
    lines = [f"{number:06}" for number in range(40_000)]
    outcome = place.run(Job(steps=steps), place.lines(*lines), split_bytes=1 << 20, workers=2)
    assert sorted(key for key, _ in outcome.pairs) == lines
    assert len({name for _, name in outcome.pairs}) > 2


def test_keys_and_values_of_all_kinds_pass_from_step_to_step(place: Place) -> None:
    strange: list[Any] = [
        (("a", None, (1, 2.5)), {"k": (1, [2])}),
        (2**70, -(2**70)),
        (b"\xff", "\udcff"),
        (True, [True, 1, 1.0]),
        (-0.0, None),
    ]
    steps = {
        "first": Step(mapper=lambda line: strange, reducer=identity),
        "second": Step(mapper=identity, reducer=identity, after=("first",), partitions=3),
        "third": Step(reducer=identity, after=("second",), partitions=1),
    }
    found = place.run(Job(steps=steps), place.lines("once")).pairs
    assert sorted(map(repr, found)) == sorted(map(repr, strange))


# --- total order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_a_total_order_makes_all_parts_one_sorted_sequence(place: Place, partitions: int) -> None:
    random = Random(2)
    lines = [f"{random.randint(0, 10**6)}" for _ in range(2000)]
    job = Job(lambda line: [(int(line), None)], identity, partitioner=TotalOrder(sample=500))
    path = place.lines(*lines)
    outcome = place.run(job, path, partitions=partitions, split_bytes=4000, workers=2)
    assert outcome.pairs == [(key, None) for key in sorted(map(int, lines))]
    parts = place.parts(job, path, partitions=partitions, split_bytes=4000)
    sizes = [part.count(b"\n") for name, part in parts.items() if name != "_SUCCESS"]
    assert len(sizes) == partitions
    assert max(sizes) < 2 * 2000 / partitions


def test_borders_of_a_total_order_do_not_depend_on_workers_or_splits(place: Place) -> None:
    path = place.write("text.txt", TEXT)
    job = Job(words(), totals(), partitioner=TotalOrder(sample=100))
    runs = [
        place.parts(job, path, partitions=4, workers=workers, split_bytes=split_bytes)
        for workers, split_bytes in ((1, KIB), (3, KIB), (2, 32 << 20))
    ]
    assert runs[0] == runs[1] == runs[2]


def test_a_total_order_bears_few_keys_and_none(place: Place) -> None:
    job = Job(words(), totals(), partitioner=TotalOrder())
    same = place.parts(job, place.lines(*["same"] * 100), partitions=4, split_bytes=50)
    assert b"".join(same.values()) == b"same\t100\n"
    assert place.run(job, place.write("empty.txt", ""), partitions=4).pairs == []


def test_a_later_step_can_be_in_total_order(place: Place) -> None:
    steps = {
        "count": Step(mapper=words(), reducer=totals(), partitions=3),
        "rank": Step(
            mapper=lambda word, count: [((-count, word), None)],
            reducer=identity,
            partitioner=TotalOrder(),
            partitions=4,
            after=("count",),
        ),
    }
    found = [key for key, _ in place.run(Job(steps=steps), place.write("text.txt", TEXT)).pairs]
    assert found == sorted((-count, word) for word, count in COUNTS.items())
