"""How a program runs a job and what it gets: a result to iterate and to close, a report, or a clear refusal.

A result keeps its files until it is closed, by hand or by being forgotten. What makes no sense is refused
before any work: UsageError where a value is wrong, TypeError where it is of another type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mapreduce import Job
from mapreduce.errors import InputError, OutputError, UsageError
from mapreduce.local import Result
from tests.mapreduce.conftest import COUNTS, KIB, TEXT, Place, ones, totals, words

# --- results -------------------------------------------------------------------------------------------


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


# --- what is asked for ---------------------------------------------------------------------------------


def test_paths_may_be_path_objects(place: Place) -> None:
    output = place.root / "out"
    with Job(words(), totals()).run(Path(place.lines("a")), temp_dir=place.temp, output=output) as result:
        assert result.output == str(output)
    assert (output / "_SUCCESS").exists()


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


def test_a_job_needs_an_input(place: Place) -> None:
    error = place.failure(Job(words(), totals()))
    assert isinstance(error, InputError)
    assert str(error) == "a job needs at least one input; - reads standard input"


def test_an_output_that_is_not_empty_is_refused_before_any_work(place: Place) -> None:
    place.write("out/old", "kept")
    marker = place.root / "ran"
    job = Job(lambda line: [(open(marker, "w").close(), 1)])
    error = place.failure(job, place.lines("a"), output=str(place.root / "out"))
    assert isinstance(error, OutputError)
    assert not marker.exists()
    assert (place.root / "out" / "old").read_text() == "kept"
