"""What user code finds while it runs: its task, counters, parameters, side files, locks, its status.

It is called once a task to set up and once to tear down; what it prints is passed on, and where it goes in
the file system is its own business.

User code stands inside the tests: so it travels to the children by value, and they need not import this.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from mapreduce import Job, TotalOrder, identity, task
from mapreduce.progress import Progress
from tests.mapreduce.conftest import COUNTS, KIB, TEXT, Place, totals, words


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
