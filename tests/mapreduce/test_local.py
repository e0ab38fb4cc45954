"""A job on this machine's cores gives what one process would give, whatever the workers and the splits.

User code stands inside the tests: so it travels to the children by value, and they need not import this.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import sys
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mapreduce import FixedLength, Job, Pairs, Step, Text, TotalOrder, batch, identity, task
from mapreduce.errors import InputError, OutputError, UsageError
from mapreduce.local import MIN_MEMORY_BYTES, Result
from mapreduce.progress import Progress
from mapreduce.work_directory import WorkDirectory
from tests.mapreduce.conftest import Place, ones, totals

KIB = 1 << 10


def text_of(words: int, seed: int = 1) -> str:
    """Return a text of many different words in lines of many lengths."""
    random = Random(seed)
    chosen = [f"w{int(random.expovariate(0.02))}" for _ in range(words)]
    lines = []
    while chosen:
        count = random.randint(0, 12)
        lines.append(" ".join(chosen[:count]))
        del chosen[:count]
    return "".join(f"{line}\n" for line in lines)


TEXT = text_of(1500)
COUNTS = Counter(TEXT.split())


def words() -> Any:
    """Return a mapper that yields the words of a line."""
    return lambda line: [(word, 1) for word in line.split()]


# --- the same bytes -----------------------------------------------------------------------------------


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


# --- kinds of steps -----------------------------------------------------------------------------------


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


# --- several steps ------------------------------------------------------------------------------------


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


# --- total order --------------------------------------------------------------------------------------


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


# --- what user code finds -----------------------------------------------------------------------------


def test_setup_and_teardown_run_once_in_every_task(place: Place) -> None:
    def setup() -> None:
        task.counters["set up"] += 1

    def teardown() -> None:
        task.counters["torn down"] += 1

    job = Job(words(), totals(), setup=setup, teardown=teardown)
    outcome = place.run(job, place.write("text.txt", TEXT), split_bytes=KIB, partitions=3, workers=2)
    tasks = outcome.report["map_tasks"] + outcome.report["reduce_tasks"]
    assert tasks > 8
    assert outcome.counters == {"set up": tasks, "torn down": tasks}


def test_counters_are_exact(place: Place) -> None:
    def mapper(line: str) -> Any:
        task.counters["lines"] += 1
        task.counters["words"] += len(line.split())
        return [(word, 1) for word in line.split()]

    def reducer(word: str, counts: Any) -> Any:
        task.counters["distinct"] += 1
        yield word, sum(counts)

    job = Job(mapper, reducer, combiner=totals(), partitioner=TotalOrder(sample=50))
    outcome = place.run(job, place.write("text.txt", TEXT), split_bytes=KIB, partitions=3, workers=2)
    expected = {"distinct": len(COUNTS), "lines": TEXT.count("\n"), "words": sum(COUNTS.values())}
    assert outcome.counters == outcome.report["counters"] == expected


def test_a_task_knows_where_it_is(place: Place) -> None:
    def mapper(line: str) -> Any:
        yield "map", (task.step, task.task_id, task.attempt, task.input_path)

    def reducer(key: str, values: Any) -> Any:
        yield key, list(values)
        yield "reduce", [(task.step, task.task_id, task.attempt, task.input_path)]

    path = place.lines("aaaa", "bbbb")
    outcome = place.run(Job(mapper, reducer, name="where"), path, split_bytes=5)
    assert dict(outcome.pairs) == {
        "map": [("where", "map-00000", 1, path), ("where", "map-00001", 1, path)],
        "reduce": [("where", "reduce-00000", 1, "")],
    }


def test_parameters_are_the_jobs_defaults_overlaid_by_what_is_given(place: Place) -> None:
    job = Job(
        lambda line: [(name, task.params[name]) for name in sorted(task.params)], params={"k": 1, "n": 2}
    )
    path = place.lines("once")
    assert place.run(job, path).pairs == [("k", 1), ("n", 2)]
    given = {"n": [3], "more": None}
    assert place.run(job, path, params=given).pairs == [("k", 1), ("more", None), ("n", [3])]


def test_side_files_are_found_by_name(place: Place) -> None:
    stop = place.write("lists/stop.txt", "the\nof\n")

    def mapper(line: str) -> Any:
        with open(task.side_file("stop.txt")) as file:
            stopped = file.read().split()
        return [(word, 1) for word in line.split() if word not in stopped]

    job = Job(mapper, totals(), side_files=[stop])
    assert place.run(job, place.lines("the end of the world")).pairs == [("end", 1), ("world", 1)]


def test_a_lock_excludes_and_its_tokens_grow(place: Place) -> None:
    counter = place.write("counter", "0")

    def mapper(line: str) -> Any:
        with task.lock("counter") as token:
            with open(counter) as file:
                value = int(file.read())
            with open(counter, "w") as file:
                file.write(str(value + 1))
        with task.lock("another") as other:
            yield token, (value, other)

    outcome = place.run(Job(mapper), place.lines(*map(str, range(60))), split_bytes=20, workers=4)
    tokens = sorted(token for token, _ in outcome.pairs)
    assert tokens == list(range(1, 61)), "every holding has a token of its own, and each is higher"
    assert all(value == token - 1 for token, (value, _) in outcome.pairs), "nobody came in between"
    assert sorted(other for _, (_, other) in outcome.pairs) == list(range(1, 61))


def test_the_status_of_a_task_is_shown_with_the_progress(place: Place) -> None:
    seen: list[Progress] = []

    def mapper(line: str) -> Any:
        task.status(f"at {line}")
        yield line, 1

    place.run(Job(mapper, totals()), place.lines("a", "b"), on_progress=seen.append)
    assert (seen[0].stage, seen[0].step) == ("map", "main")
    assert "at b" in {one.status for one in seen}
    last = {one.stage: one for one in seen}
    assert (last["map"].done, last["map"].total) == (1, 1)
    assert last["map"].bytes_done == last["map"].bytes_total == 4
    assert (last["reduce"].done, last["reduce"].total) == (1, 1)


def test_what_user_code_prints_is_passed_on(place: Place) -> None:
    def mapper(line: str) -> Any:
        print("out", line)
        print("err", line, file=sys.stderr)
        yield line, 1

    messages = place.run(Job(mapper), place.lines("a", "b")).messages
    assert sorted("\n".join(messages).split("\n")) == ["err a", "err b", "out a", "out b"]


def test_user_code_may_change_its_directory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root)
    place.lines("a", "b")
    place.write("side.txt", "side")

    def mapper(line: str) -> Any:
        with open(task.side_file("side.txt")) as file:
            yield line, file.read()

    job = Job(mapper, identity, setup=lambda: os.chdir("/"), side_files=["side.txt"])
    with job.run("in.txt", temp_dir="temp", split_bytes=2, workers=1) as result:
        assert list(result) == [("a", "side"), ("b", "side")]
    job.run("in.txt", temp_dir="temp", output="out", workers=1).close()
    assert (place.root / "out" / "part-00000").read_text() == "a\tside\nb\tside\n"


# --- inputs -------------------------------------------------------------------------------------------


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


# --- memory -------------------------------------------------------------------------------------------


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


# --- results and reports ------------------------------------------------------------------------------


def test_a_result_can_be_iterated_again_until_it_is_closed(place: Place) -> None:
    result = Job(words(), totals()).run(place.write("text.txt", TEXT), temp_dir=str(place.temp), workers=1)
    assert isinstance(result, Result)
    assert dict(result) == dict(result) == COUNTS
    assert list(place.temp.glob("*/run-*")) != []
    result.close()
    assert list(place.temp.glob("*/run-*")) == []
    result.close()


def test_a_result_that_is_closed_says_so(place: Place) -> None:
    result = Job(ones(), totals()).run(place.lines("a"), temp_dir=str(place.temp), workers=1, partitions=2)
    begun = iter(result)
    assert next(begun) == ("a", 1)
    result.close()
    for pairs in (begun, iter(result)):
        with pytest.raises(UsageError, match="the result was closed and its pairs are gone"):
            list(pairs)


def test_a_result_that_is_no_longer_used_closes_itself(place: Place) -> None:
    result = Job(words(), totals()).run(place.lines("a"), temp_dir=str(place.temp), workers=1)
    assert list(place.temp.glob("*/run-*")) != []
    del result  # the fixture sees that nothing is left


def test_a_result_with_an_output_directory_is_read_there(place: Place) -> None:
    output = str(place.root / "out")
    with Job(words(), totals()).run(place.lines("a"), output=output, temp_dir=str(place.temp)) as result:
        assert result.output == output
        with pytest.raises(UsageError, match="run without output= to iterate it"):
            list(result)


@pytest.mark.parametrize("told", ["on_message", "on_progress"])
def test_a_failure_of_the_callers_own_function_comes_back_as_it_was(place: Place, told: str) -> None:
    broken = BrokenPipeError(32, "Broken pipe")

    def tell(_: Any) -> None:
        raise broken

    def mapper(line: str) -> Any:
        print(line)

    with pytest.raises(BrokenPipeError) as failed:
        Job(mapper, totals()).run(place.lines("a"), temp_dir=str(place.temp), workers=1, **{told: tell})
    assert failed.value is broken


# --- the private directory ----------------------------------------------------------------------------


@pytest.mark.parametrize(("age_s", "is_left"), [(60, True), (7200, False)])
def test_a_directory_without_an_owner_is_swept_when_it_is_old(
    place: Place, age_s: float, is_left: bool
) -> None:
    stray = place.temp / f"ringreduce-{os.getuid()}" / "run-stray"
    (stray / "deep").mkdir(parents=True)
    (stray / "deep" / "file").touch()
    then = time.time() - age_s
    os.utime(stray, (then, then))
    WorkDirectory(str(place.temp)).remove()
    assert stray.exists() == is_left
    shutil.rmtree(stray, ignore_errors=True)


def test_a_removal_that_is_cut_short_is_ended_by_the_next_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = WorkDirectory(str(place.temp))
    for number in range(20):
        Path(directory.path, f"{number}.runs").touch()
    unlink = os.unlink

    def cut_short(path: str) -> None:
        unlink(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", cut_short)
        with pytest.raises(KeyboardInterrupt):
            directory.remove()
    assert "owner" in os.listdir(directory.path)
    assert len(os.listdir(directory.path)) == 20
    os.close(directory._lock)  # as the end of the process does
    WorkDirectory(str(place.temp)).remove()  # the fixture sees that nothing is left


def test_the_report_tells_what_the_job_did(place: Place) -> None:
    path = place.write("text.txt", TEXT)
    report = place.run(Job(words(), totals()), path, split_bytes=KIB, partitions=3).report
    splits = -(-len(TEXT) // KIB)
    assert {
        key: report[key]
        for key in ("state", "input_bytes", "reduce_tasks", "failed_attempts", "output_records", "counters")
    } == {
        "state": "COMMITTED",
        "input_bytes": len(TEXT),
        "reduce_tasks": 3,
        "failed_attempts": 0,
        "output_records": len(COUNTS),
        "counters": {},
    }
    assert splits - 1 <= report["map_tasks"] <= splits
    assert report["attempts"] == report["map_tasks"] + 3
    assert report["shuffle_bytes"] > 0
    assert report["output_bytes"] > 0
    assert report["cpu_s"] > 0
    assert 0 < report["wall_s"] < 60
    assert report["peak_task_memory_bytes"] > 1 << 20
    assert [report[key] for key in ("maps_run_again", "leader_changes", "peers_lost", "replica_bytes")] == [
        0
    ] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "0 workers: choose 1 to 1024"),
        ({"workers": 2000}, "2000 workers: choose 1 to 1024"),
        ({"partitions": 0}, "0 partitions: choose 1 to 100,000"),
        ({"split_bytes": 0}, "a split of 0 bytes is too small"),
        ({"out_format": "xml"}, "no output format 'xml'; there are: text, jsonl, msgpack"),
        ({"memory_bytes": 1 << 20}, "1,048,576 bytes of memory are too few for a task: give it 256 MiB"),
    ],
)
def test_options_that_make_no_sense_are_refused(place: Place, options: dict[str, Any], message: str) -> None:
    error = place.failure(Job(words(), totals()), place.lines("a"), **options)
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert message in str(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": "3"}, "workers='3': expected a whole number"),
        ({"partitions": 2.0}, "partitions=2.0: expected a whole number"),
        ({"memory_bytes": True}, "memory_bytes=True: expected a whole number"),
        ({"output": 3}, "output=3: expected a path"),
        ({"params": [("k", 1)]}, r"params=\[\('k', 1\)\]: expected a dict"),
        ({"on_message": "print"}, "on_message='print': expected a function"),
        ({"worker": 3}, "unexpected keyword argument 'worker'"),
    ],
)
def test_options_of_another_type_are_type_errors(place: Place, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Job(words(), totals()).run(place.lines("a"), **{"temp_dir": place.temp, **options})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (3, "expected a path or a list of paths, got 3"),
        ([3], "expected paths, got 3"),
        (None, "expected a path or a list of paths, got None"),
        (b"books", "expected a path or a list of paths, got b'books'"),
    ],
    ids=str,
)
def test_inputs_that_are_no_paths_are_type_errors_that_say_so(inputs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Job(words(), totals()).run(inputs)


def test_paths_may_be_path_objects(place: Place) -> None:
    output = place.root / "out"
    with Job(words(), totals()).run(Path(place.lines("a")), temp_dir=place.temp, output=output) as result:
        assert result.output == str(output)
    assert (output / "_SUCCESS").exists()


def test_an_output_that_is_not_empty_is_refused_before_any_work(place: Place) -> None:
    place.write("out/old", "kept")
    marker = place.root / "ran"
    job = Job(lambda line: [(open(marker, "w").close(), 1)])
    error = place.failure(job, place.lines("a"), output=str(place.root / "out"))
    assert isinstance(error, OutputError)
    assert not marker.exists()
    assert (place.root / "out" / "old").read_text() == "kept"


def test_a_job_needs_an_input(place: Place) -> None:
    error = place.failure(Job(words(), totals()))
    assert isinstance(error, InputError)
    assert str(error) == "a job needs at least one input; - reads standard input"
