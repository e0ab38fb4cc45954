"""Whatever user code does, a job ends with an error that names the fault, and leaves nothing behind.

User code stands inside the tests: so it travels to the children by value, and they need not import this.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mapreduce import Job, Step, Text, batch, reader, task
from mapreduce.errors import (
    BadKey,
    BadValue,
    InputError,
    JobDefinitionError,
    TaskFailed,
    TooManyBadRecords,
)
from tests.mapreduce.conftest import Place, line_of, once, ones, totals

NUMBERED = tuple(f"line {number}" for number in range(20))


# --- exceptions in user code --------------------------------------------------------------------------


def test_an_exception_in_a_mapper_names_step_task_attempt_and_place(place: Place) -> None:
    def mapper(line: str) -> Any:
        if line == "line 7":
            raise ValueError("bad luck")  # here
        yield line, 1

    path = place.lines(*NUMBERED)
    error = place.failure(Job(mapper, totals(), name="count", max_attempts=2), path)
    assert isinstance(error, TaskFailed)
    assert error.exit_code == 1
    assert str(error) == (
        f"step 'count', task map-00000, attempt 2 of 2 at {path}, line 8 (byte 49): ValueError: bad luck"
    )
    details = error.details.splitlines()
    assert details[0] == "Traceback (most recent call last):"
    assert details[1] == f'  File "{__file__}", line {line_of(mapper)}, in mapper'
    assert details[-1] == "ValueError: bad luck"
    assert sum(line.startswith("  File ") for line in details) == 1, "only the user's own frames"


def test_a_place_is_exact_in_every_batch_split_and_line_end(place: Place) -> None:
    def mapper(line: str) -> Any:
        return [(line, 1)] if "x" not in line else 1 / 0

    text = "".join(f"{number:06}{'x' if number == 37_000 else ''}\r\n" for number in range(60_000))
    path = place.write("long.txt", "\ufeff" + text)
    error = place.failure(once(mapper), path, split_bytes=100_000)
    assert f"at {path}, line 37,001 (byte 296,003): ZeroDivisionError: division by zero" in str(error)


def test_an_exception_in_a_reducer_names_the_key(place: Place) -> None:
    def reducer(key: str, values: Any) -> Any:
        if key == "line 7":
            raise KeyError("lost")
        yield key, 1

    error = place.failure(once(ones(), reducer), place.lines(*NUMBERED))
    assert str(error) == "step 'main', task reduce-00000, attempt 1 of 1 at key 'line 7': KeyError: 'lost'"


def test_a_failing_step_of_several_is_named_with_the_key_it_read(place: Place) -> None:
    steps = {
        "count": Step(mapper=ones(), reducer=totals()),
        "top": Step(mapper=lambda key, value: 1 / 0 if key == "b" else [], after=("count",)),
    }
    error = place.failure(Job(steps=steps, max_attempts=1), place.lines("a", "b", "c"))
    assert str(error).startswith(
        "step 'top', task map-00000, attempt 1 of 1 at count/part-00000, key 'b': ZeroDivisionError"
    )


def failing() -> Any:
    """Return a function that raises, whatever it is called with, and travels by value."""
    return lambda *_: {}["no"]


@pytest.mark.parametrize(
    ("make", "task_name"),
    [
        (once, "map"),
        (lambda f: once(ones(), f), "reduce"),
        (lambda f: once(lambda line: [("k", 1), ("k", 1)], combiner=lambda key, values: f()), "map"),
        (lambda f: once(ones(), partitioner=lambda key, count: f(), partitions=2), "map"),
        (lambda f: once(lambda line: [("k", 1), ("k", 2)], sort_values=lambda value: f()), "reduce"),
        (lambda f: once(ones(), setup=f), "map"),
        (lambda f: once(ones(), teardown=f), "map"),
        (lambda f: once(ones(), reader=reader(lambda file: f())), "map"),
        (lambda f: Job(f, max_attempts=1), "map"),
    ],
    ids=[
        "mapper",
        "reducer",
        "combiner",
        "partitioner",
        "sort_values",
        "setup",
        "teardown",
        "reader",
        "map-only",
    ],
)
def test_an_exception_in_any_function_of_a_job_is_the_users(
    place: Place, make: Callable[[Any], Job], task_name: str
) -> None:
    error = place.failure(make(failing()), place.lines("a"))
    assert isinstance(error, TaskFailed)
    assert str(error).startswith(f"step 'main', task {task_name}-00000, attempt 1 of 1")
    assert str(error).endswith("KeyError: 'no'")
    frames = re.findall(r'  File "(.*)", line', error.details)
    assert frames != []
    assert set(frames) == {__file__}


def test_a_traceback_has_the_users_frames_only(place: Place) -> None:
    def mapper(line: str) -> Any:
        yield task.side_file("nowhere"), 1  # here

    error = place.failure(once(mapper), place.lines("a"))
    assert isinstance(error, TaskFailed)
    assert str(error).endswith("KeyError: \"the job has no side file 'nowhere'; it has: none\"")
    assert re.findall(r'  File "(.*)", line (\d+)', error.details) == [(__file__, str(line_of(mapper)))]


def test_the_cause_of_an_exception_is_shown(place: Place) -> None:
    def mapper(line: str) -> Any:
        try:
            int(line)
        except ValueError as error:
            raise RuntimeError("not a number") from error

    error = place.failure(once(mapper), place.lines("a"))
    assert isinstance(error, TaskFailed)
    assert "ValueError: invalid literal for int() with base 10: 'a'" in error.details
    assert "The above exception was the direct cause of the following exception" in error.details
    assert error.details.rstrip().endswith("RuntimeError: not a number")


def test_a_message_of_many_lines_or_of_great_length_is_one_short_line(place: Place) -> None:
    def mapper(line: str) -> Any:
        raise ValueError("first\nsecond " + "x" * 100_000)

    error = place.failure(once(mapper), place.lines("a"))
    assert isinstance(error, TaskFailed)
    assert "ValueError: first second xxx" in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000
    assert len(error.details) < 5000


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, BaseException])
def test_every_kind_of_exception_is_the_users_mistake(place: Place, kind: type[BaseException]) -> None:
    def mapper(line: str) -> Any:
        raise kind("stop")

    error = place.failure(once(mapper), place.lines("a"))
    assert isinstance(error, TaskFailed)
    assert re.search(r"(stop|StopIteration|sys\.exit\('stop'\))", str(error))


def test_an_exception_that_cannot_be_printed_is_named_by_its_type(place: Place) -> None:
    class Secret(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def mapper(line: str) -> Any:
        raise Secret

    assert str(place.failure(once(mapper), place.lines("a"))).endswith("line 1 (byte 0): Secret")


def test_a_recursion_without_end_is_an_exception(place: Place) -> None:
    def mapper(line: str) -> Any:
        def deeper(depth: int) -> int:
            return deeper(depth + 1)

        return [(line, deeper(0))]

    error = place.failure(once(mapper), place.lines("a"))
    assert isinstance(error, TaskFailed)
    assert "RecursionError: maximum recursion depth exceeded" in str(error)
    assert len(error.details.splitlines()) < 40


def test_a_module_that_is_missing_is_the_users_exception(place: Place) -> None:
    def mapper(line: str) -> Any:
        import module_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401

    error = place.failure(once(mapper), place.lines("a"))
    assert str(error).endswith("ModuleNotFoundError: No module named 'module_that_nobody_has'")


@pytest.mark.parametrize("role", ["mapper", "reducer", "combiner", "batch mapper"])
def test_a_stop_iteration_does_not_end_the_input(place: Place, role: str) -> None:
    """next() raises it in plain functions; the iterators around them must not take it for their end."""

    def one(line: str) -> Any:
        return [(next(iter(line.split())), 1)]

    def two(key: str, values: Any) -> Any:
        return [(key, next(value for value in values if value > 1))]

    jobs = {
        "mapper": once(one),
        "batch mapper": once(batch(lambda lines: one(lines[1]))),
        "reducer": once(ones(), two),
        "combiner": once(lambda line: [("k", 1), ("k", 1)], combiner=two),
    }
    error = place.failure(jobs[role], place.lines("a", "", "c"))
    assert isinstance(error, TaskFailed)
    assert "StopIteration" in str(error)


def test_a_failing_batch_is_named_by_its_first_line(place: Place) -> None:
    @batch
    def mapper(lines: list[str]) -> Any:
        raise ValueError("bad batch")

    path = place.lines("a", "b")
    error = place.failure(once(mapper), path)
    assert f"at the batch that begins at {path}, line 1 (byte 0): ValueError: bad batch" in str(error)


def test_a_failing_mapper_of_a_split_is_named_by_the_record_it_had(place: Place) -> None:
    @batch("split")
    def mapper(lines: Iterator[str]) -> Any:
        return {line: 1 / int(line) for line in lines}

    path = place.lines("3", "2", "0", "1")
    error = place.failure(once(mapper), path)
    assert f"at {path}, line 3 (byte 4): ZeroDivisionError: division by zero" in str(error)


# --- what user code gives -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (7, "7 (a int)"),
        (None, "None (a NoneType)"),
        ("ab", "'ab' (a str)"),
        (("a",), "('a',) (a tuple)"),
        (("a", 1, 2), "('a', 1, 2) (a tuple)"),
        ({"a": 1, "b": 2}, "{'a': 1, 'b': 2} (a dict)"),
    ],
)
def test_what_is_no_pair_is_named(place: Place, given: Any, named: str) -> None:
    path = place.lines("a", "a")
    by_mapper = place.failure(Job(lambda line: [given], totals()), path)
    assert isinstance(by_mapper, JobDefinitionError)
    assert str(by_mapper) == (
        f"step 'main', task map-00000 at {path}, line 1 (byte 0): the mapper gave {named}; "
        "it must yield pairs, (key, value)"
    )
    by_reducer = place.failure(Job(ones(), lambda key, values: [given]), path)
    assert str(by_reducer) == (
        f"step 'main', task reduce-00000: the reducer gave {named}; it must yield pairs, (key, value)"
    )
    by_combiner = place.failure(Job(ones(), totals(), combiner=lambda key, values: [given]), path)
    assert f"the combiner gave {named}; it must yield pairs" in str(by_combiner)
    assert by_mapper.exit_code == by_reducer.exit_code == by_combiner.exit_code == 2


def test_something_that_is_no_pair_is_found_behind_good_ones(place: Place) -> None:
    def mapper(line: str) -> Any:
        yield line, 1
        if line == "line 7":
            yield (line,)

    path = place.lines(*NUMBERED)
    error = place.failure(Job(mapper, totals()), path)
    assert f"at {path}, line 8 (byte 49): user code must yield pairs, (key, value): not enough" in str(error)


def test_what_cannot_be_iterated_is_named(place: Place) -> None:
    error = place.failure(Job(lambda line: 7, totals()), place.lines("a"))
    assert isinstance(error, JobDefinitionError)
    assert str(error).endswith(
        "<lambda> returned 7 (a int); it must yield pairs, (key, value), or return a list of them"
    )


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ([1], "the list [1] cannot be a key; use a tuple"),
        (math.nan, "NaN cannot be a key"),
        ({}, "the dict {} cannot be a key"),
        (("a", {1}), "the set {1} cannot be a key"),
    ],
)
def test_a_bad_key_is_named_with_the_line_that_yielded_it(place: Place, key: Any, named: str) -> None:
    def mapper(line: str) -> Any:
        yield line, 1
        if line == "line 7":
            yield key, 1  # here

    path = place.lines(*NUMBERED)
    error = place.failure(Job(mapper, totals()), path)
    assert isinstance(error, BadKey)
    assert error.exit_code == 2
    assert str(error).startswith(f"step 'main', task map-00000 at {path}, line 8 (byte 49): {named}")
    assert str(error).endswith(f"; yielded at {__file__}, line {line_of(mapper)}")


def test_a_bad_key_of_a_reducer_is_refused(place: Place) -> None:
    error = place.failure(Job(ones(), lambda key, values: [([key], 1)]), place.lines("a"))
    assert isinstance(error, BadKey)
    assert str(error).startswith(
        "step 'main', task reduce-00000: the list ['a'] cannot be a key; use a tuple"
    )


def test_a_value_that_cannot_be_sent_is_named_with_its_key(place: Place) -> None:
    def mapper(line: str) -> Any:
        yield line, {1, 2} if line == "line 7" else 1

    error = place.failure(Job(mapper, totals()), place.lines(*NUMBERED))
    assert isinstance(error, BadValue)
    assert error.exit_code == 2
    assert "under key 'line 7': a set cannot be sent; yield sorted(…) instead" in str(error)
    job = Job(ones(), lambda key, values: [(key, object() if key == "a" else 1)])
    error = place.failure(job, place.lines("a", "b"))
    assert isinstance(error, BadValue)
    assert str(error).startswith("step 'main', task reduce-00000: under key 'a': a object cannot be sent")


def test_a_value_that_cannot_be_written_leaves_no_output(place: Place) -> None:
    output = place.root / "out"
    job = Job(ones(), lambda key, values: [(key, object())])
    error = place.failure(job, place.lines("a"), output=str(output))
    assert isinstance(error, BadValue)
    assert "of key 'a' cannot be written" in str(error)
    assert not output.exists()


def test_values_without_an_order_cannot_be_sorted(place: Place) -> None:
    job = Job(lambda line: [("k", {}), ("k", {})], totals(), sort_values=True)
    error = place.failure(job, place.lines("a"))
    assert isinstance(error, BadValue)
    assert "value {} cannot be sorted" in str(error)
    assert "give it a function" in str(error)


def test_a_failing_order_of_values_is_named_by_its_key(place: Place) -> None:
    job = once(lambda line: [("a", 1), ("a", 2), ("b", 1), ("b", 0)], sort_values=lambda value: 1 / value)
    error = place.failure(job, place.lines("once"))
    assert isinstance(error, TaskFailed)
    assert str(error).endswith("at key 'b': ZeroDivisionError: division by zero")
    assert "FailedAtKey" not in error.details


def test_a_partitioner_must_give_a_partition(place: Place) -> None:
    error = place.failure(
        Job(ones(), totals(), partitioner=lambda key, count: 9, partitions=2), place.lines("a")
    )
    assert isinstance(error, JobDefinitionError)
    assert str(error).endswith("the partitioner returned 9 for key 'a'; it must return an int, 0 to 1")


def test_what_cannot_travel_is_refused_before_any_work(place: Place) -> None:
    lock = threading.Lock()
    error = place.failure(Job(lambda line: [(line, lock)], totals()), place.lines("a"))
    assert isinstance(error, JobDefinitionError)
    assert "cannot travel to another process" in str(error)


# --- bad input ----------------------------------------------------------------------------------------


def test_undecodable_bytes_are_named_with_their_place_and_a_remedy(place: Place) -> None:
    path = place.write("bad.txt", b"fine\nalso\nx\xff bad\n")
    error = place.failure(Job(ones(), totals()), path)
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert str(error).startswith(
        f"{path}, line 3 (byte 11): not valid utf-8 (invalid start byte: ff); choose errors="
    )
    assert place.run(Job(ones(), totals(), reader=Text(errors="replace")), path).pairs[-1] == (
        "x\ufffd bad",
        1,
    )


def test_inputs_that_are_not_there_are_told_before_any_work(place: Place) -> None:
    error = place.failure(Job(ones(), totals()), str(place.root / "nothing.txt"))
    assert isinstance(error, InputError)
    assert str(error).endswith("nothing.txt: no such file or directory")
    assert isinstance(place.failure(Job(ones(), totals())), InputError)
    error = place.failure(Job(ones(), totals(), side_files={"stop": "/nowhere/stop.txt"}), place.lines("a"))
    assert str(error) == "side file stop: no such file: /nowhere/stop.txt"


def test_a_file_that_shrinks_while_the_job_runs_is_told(place: Place) -> None:
    path = place.lines(*("x" * 99 for _ in range(10)))

    def setup() -> None:
        os.truncate(path, 550)

    error = place.failure(once(ones(), setup=setup), path, split_bytes=500)
    assert isinstance(error, InputError)
    assert "has shrunk" in str(error)


@pytest.mark.parametrize("workers", [1, 3])
def test_bad_records_are_left_out_and_counted_exactly(place: Place, workers: int) -> None:
    def mapper(line: str) -> Any:
        number = int(line)
        yield "good", 1
        if number == 50:
            raise RuntimeError("its pairs are left out too")
        if number == 51:
            yield [number], 1

    lines = ["bad" if number % 10 == 0 else str(number) for number in range(100)]
    path = place.write("in.txt", "".join(f"{line}\n" for line in lines).encode() + b"\xff\n50\n51\n")
    job = Job(mapper, totals(), on_bad_record="skip:14")
    outcome = place.run(job, path, workers=workers, split_bytes=40)
    # Ten lines that are no numbers, one that is no text, one 50, two 51.
    assert outcome.pairs == [("good", 89)]
    assert outcome.counters == {"bad_records": 14}


def test_more_bad_records_than_allowed_end_the_job(place: Place) -> None:
    def mapper(line: str) -> Any:
        yield int(line), 1  # here

    path = place.lines("1", "x", "2", "y", "z", "3")
    error = place.failure(Job(mapper, totals(), on_bad_record="skip:2"), path)
    assert isinstance(error, TooManyBadRecords)
    assert error.exit_code == 1
    assert str(error) == (
        f"step 'main', task map-00000: more than 2 bad records; the last at {path}, line 5 (byte 8): "
        "ValueError: invalid literal for int() with base 10: 'z'"
    )
    assert f'File "{__file__}", line {line_of(mapper)}, in mapper' in error.details


def test_bad_records_are_counted_over_all_tasks_of_a_step(place: Place) -> None:
    path = place.lines("x", "1", "y", "2", "z", "3")
    job = Job(lambda line: [(int(line), 1)], totals(), on_bad_record="skip:2")
    error = place.failure(job, path, split_bytes=4)
    assert isinstance(error, TooManyBadRecords)
    assert str(error) == "step 'main': more than 2 bad records"


def test_a_copy_of_the_process_that_user_code_forks_does_not_do_the_task_again(tmp_path: Any) -> None:
    (tmp_path / "lines.txt").write_text("a\nb\nc\n")

    def forking(line: str) -> Any:
        if line == "b" and os.fork() == 0:
            yield "copy", 1
            return
        yield line, 1

    def total(line: str, counts: Any) -> Any:
        yield line, sum(counts)

    for _ in range(3):
        with Job(forking, total).run(str(tmp_path / "lines.txt"), temp_dir=str(tmp_path)) as result:
            assert list(result) == [("a", 1), ("b", 1), ("c", 1)]
