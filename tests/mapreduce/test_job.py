"""A job that is wrong is refused when it is written down, with a message that says what and where."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from mapreduce import FixedLength, Job, Pairs, Step, Text, TotalOrder, WholeFile, batch, identity
from mapreduce.errors import JobDefinitionError
from mapreduce.job import batch_kind


def mapper(record: Any) -> Any:
    yield record, 1


def pair_mapper(key: Any, value: Any) -> Any:
    yield key, value


def reducer(key: Any, values: Any) -> Any:
    yield key, sum(values)


def refusal(make: Callable[[], Any]) -> str:
    with pytest.raises(JobDefinitionError) as refused:
        make()
    return str(refused.value)


# --- what makes a job ---------------------------------------------------------------------------------


def test_a_mapper_and_a_reducer_make_a_job_of_one_step() -> None:
    job = Job(mapper, reducer, name="count")
    assert job.steps == {"count": Step(mapper=mapper, reducer=reducer)}
    assert (job.name, job.last_step, job.max_attempts) == ("count", "count", 3)


def test_a_job_without_a_name_has_a_step_called_main() -> None:
    assert list(Job(mapper).steps) == ["main"]


def test_jobs_and_steps_are_values_that_nothing_changes() -> None:
    job = Job(mapper, reducer)
    with pytest.raises(FrozenInstanceError):
        job.name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        job.steps["main"].partitions = 3  # type: ignore[misc]
    assert Job(mapper, reducer) == job
    assert Job(mapper, reducer, partitions=2) != job
    assert replace(job, max_attempts=5).max_attempts == 5


def test_what_was_given_to_a_job_may_change_afterwards() -> None:
    params, side_files, steps = {"k": 1}, {"stop": "stop.txt"}, {"only": Step(mapper=mapper)}
    job = Job(steps=steps, params=params, side_files=side_files)
    params["k"], side_files["stop"], steps["more"] = 2, "other", Step(mapper=mapper)
    assert (job.params, job.side_files, list(job.steps)) == ({"k": 1}, {"stop": "stop.txt"}, ["only"])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"stop": "lists/stop.txt"}, {"stop": "lists/stop.txt"}),
        (["lists/stop.txt", "b.txt"], {"stop.txt": "lists/stop.txt", "b.txt": "b.txt"}),
        ("lists/stop.txt", {"stop.txt": "lists/stop.txt"}),
        ((), {}),
    ],
)
def test_side_files_are_known_by_their_last_component(given: Any, kept: dict[str, str]) -> None:
    assert Job(mapper, side_files=given).side_files == kept


def test_a_step_tells_how_many_bad_records_it_bears() -> None:
    assert Step(mapper=mapper).skip_limit == 0
    assert Step(mapper=mapper, on_bad_record="skip:12").skip_limit == 12


def test_batch_marks_a_mapper_with_its_kind() -> None:
    @batch
    def records(some: Any) -> Any: ...

    @batch("text")
    def text(some: Any) -> Any: ...

    @batch("bytes")
    def data(some: Any) -> Any: ...

    @batch("split")
    def split(some: Any) -> Any: ...

    kinds = [batch_kind(one) for one in (records, text, data, split, mapper)]
    assert kinds == ["records", "text", "bytes", "split", None]
    assert refusal(lambda: batch("lines")) == (
        "@batch('lines'): the kind of batch is one of records, split, text, bytes"
    )


# --- what makes none ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Job, "step 'main' has neither a mapper nor a reducer"),
        (lambda: Job(mapper, steps={"a": Step(mapper=mapper)}), "either functions of its own or steps="),
        (lambda: Job(steps=[Step(mapper=mapper)]), r"steps=\[Step\(.*: expected a dict"),
        (lambda: Job(mapper, params=["k=1"]), r"params=\['k=1'\]: expected a dict"),
        (lambda: Job(mapper, max_attempts=0), "max_attempts=0: expected a whole number"),
        (lambda: Job(mapper, max_attempts="3"), "max_attempts='3': expected a whole number"),
        (lambda: Job(mapper, task_timeout_s=0), "task_timeout_s=0: expected seconds, above 0"),
        (lambda: Job(mapper, task_timeout_s=-1.5), "task_timeout_s=-1.5: expected seconds, above 0"),
        (lambda: Job(mapper, name="word count"), "step name 'word count': letters, digits"),
        (lambda: Job(steps={"": Step(mapper=mapper)}), "step name '': letters, digits"),
        (lambda: Job(steps={"../a": Step(mapper=mapper)}), r"step name '\.\./a': letters, digits"),
        (lambda: Job(steps={"a" * 65: Step(mapper=mapper)}), "at most 64"),
        (lambda: Job(steps={"a": mapper}), "step 'a': expected a Step, got function"),
        (lambda: Job("cat"), "step 'main': the mapper is 'cat', not a function"),
        (lambda: Job(mapper, 7), "step 'main': the reducer is 7, not a function"),
        (lambda: Job(mapper, reducer, combiner=7), "the combiner is 7, not a function"),
        (lambda: Job(mapper, reducer, partitioner=7), "the partitioner is 7, not a function"),
        (lambda: Job(mapper, reducer, sort_values="desc"), "the sort_values is 'desc', not a function"),
        (lambda: Job(mapper, setup=7), "the setup is 7, not a function"),
        (lambda: Job(mapper, teardown=7), "the teardown is 7, not a function"),
        (lambda: Job(mapper, reader=Text), "the reader is <class .*; it must be a reader such as Text()"),
        (lambda: Job(mapper, reader=open), "the reader is .*function marked with @reader"),
        (lambda: Job(mapper, combiner=reducer), "has no reducer, so nothing is shuffled.*reducer=identity"),
        (lambda: Job(mapper, partitioner=TotalOrder()), "has no reducer, so nothing is shuffled"),
        (lambda: Job(mapper, partitions=2), "has no reducer, so nothing is shuffled"),
        (lambda: Job(mapper, sort_values=True), "has no reducer, so nothing is shuffled"),
        (
            lambda: Job(mapper, reducer, partitions=0),
            "partitions=0 is not a whole number between 1 and 100,000",
        ),
        (lambda: Job(mapper, reducer, partitions=100_001), "partitions=100001 is not a whole number between"),
        (lambda: Job(mapper, reducer, partitions=2.5), "partitions=2.5 is not a whole number between"),
        (lambda: Job(mapper, reducer, partitions=True), "partitions=True is not a whole number between"),
        (lambda: Job(mapper, on_bad_record="skip"), "on_bad_record='skip' is neither 'fail' nor 'skip:N'"),
        (lambda: Job(mapper, on_bad_record="skip:-1"), "on_bad_record='skip:-1' is neither"),
        (lambda: Job(mapper, on_bad_record=5), "on_bad_record=5 is neither"),
        (lambda: TotalOrder(sample=0), r"TotalOrder\(sample=0\): expected a whole number"),
        (lambda: Job(identity, reducer), "identity passes pairs on, but its reader gives single records"),
        (lambda: Job(None, reducer), "without a mapper it passes pairs on, but.*reader=Pairs()"),
        (
            lambda: Job(steps={"a": Step(mapper=mapper), "b": Step(reducer=reducer, after="a")}),
            "step 'b': after='a'; write the names of steps as a tuple",
        ),
        (
            lambda: Job(
                steps={"a": Step(mapper=mapper), "b": Step(reducer=reducer, after=("a",), reader=Text())}
            ),
            "step 'b' reads step 'a', so it takes no reader",
        ),
    ],
)
def test_a_job_that_is_none_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(JobDefinitionError, match=message):
        make().check_inputs()


@pytest.mark.parametrize(
    ("kind", "reader"),
    [("text", WholeFile()), ("text", FixedLength(8)), ("text", Pairs()), ("bytes", Text("utf-16"))],
)
def test_a_batch_that_its_reader_cannot_give_is_refused(kind: str, reader: Any) -> None:
    whole = batch(kind)(mapper_of_batches)
    assert f"cannot be had as {kind}" in refusal(lambda: Job(whole, reader=reader))


def mapper_of_batches(some: Any) -> Any:
    yield some, 1


def test_a_batch_mapper_cannot_leave_out_bad_records() -> None:
    message = refusal(lambda: Job(batch(mapper_of_batches), on_bad_record="skip:3"))
    assert message.startswith("step 'main': a @batch mapper gets many records at a time")


def test_a_batch_of_text_is_refused_where_pairs_are_read() -> None:
    whole = batch("text")(mapper_of_batches)
    steps = {"a": Step(mapper=mapper), "b": Step(mapper=whole, after=("a",))}
    assert "step 'b': what it reads cannot be had as text" in refusal(lambda: Job(steps=steps))


# --- the number of arguments --------------------------------------------------------------------------


class Callables:
    """Things that can be called with one argument, or cannot."""

    def method(self, record: Any) -> Any: ...

    def method_of_two(self, key: Any, value: Any) -> Any: ...

    def __call__(self, record: Any) -> Any: ...

    @staticmethod
    def static(record: Any) -> Any: ...

    @classmethod
    def of_class(cls, record: Any) -> Any: ...


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def call(*arguments: Any, **more: Any) -> Any:
        return function(*arguments, **more)

    return call


def two(key: Any, value: Any) -> Any: ...


def optional(record: Any, more: Any = None) -> Any: ...


def anything(*records: Any) -> Any: ...


def keyword_default(record: Any, *, limit: int = 3) -> Any: ...


def keyword_needed(record: Any, *, limit: int) -> Any: ...


def positional_only(record: Any, /) -> Any: ...


def nothing() -> Any: ...


@pytest.mark.parametrize(
    "function",
    [
        mapper,
        lambda record: [],
        optional,
        anything,
        keyword_default,
        positional_only,
        functools.partial(two, "key"),
        functools.partial(keyword_needed, limit=1),
        Callables().method,
        Callables(),
        Callables.static,
        Callables.of_class,
        wrapped(mapper),
        str.split,
        len,
    ],
)
def test_whatever_takes_one_argument_can_be_a_mapper(function: Any) -> None:
    assert Job(function).steps["main"].mapper is function


@pytest.mark.parametrize(
    "function",
    [
        two,
        nothing,
        lambda key, value: [],
        keyword_needed,
        functools.partial(two, "key", "value"),
        functools.partial(two),
        Callables().method_of_two,
        Callables.method,
        wrapped(two),
        wrapped(nothing),
    ],
)
def test_what_takes_another_number_of_arguments_is_refused_as_a_mapper(function: Any) -> None:
    message = refusal(lambda: Job(function).check_inputs())
    assert message.startswith("step 'main': the mapper ")
    assert message.endswith("(record): it must take 1 argument")


def test_a_wrong_function_is_named_with_its_file_and_line() -> None:
    line = two.__code__.co_firstlineno
    assert refusal(lambda: Job(two).check_inputs()) == (
        f"step 'main': the mapper two ({__file__}, line {line}) cannot be called as two(record): "
        "it must take 1 argument"
    )


@pytest.mark.parametrize(
    ("role", "make", "call"),
    [
        ("reducer", lambda f: Job(mapper, f), "(key, values): it must take 2 arguments"),
        ("combiner", lambda f: Job(mapper, reducer, combiner=f), "(key, values): it must take 2 arguments"),
        (
            "partitioner",
            lambda f: Job(mapper, reducer, partitioner=f),
            "(key, partitions): it must take 2 arguments",
        ),
        ("sort_values", lambda f: Job(mapper, reducer, sort_values=f), "(value): it must take 1 argument"),
        ("setup", lambda f: Job(mapper, setup=f), "(): it must take 0 arguments"),
        ("teardown", lambda f: Job(mapper, teardown=f), "(): it must take 0 arguments"),
        ("batch mapper", lambda f: Job(batch(f)), "(records): it must take 1 argument"),
        ("mapper", lambda f: Job(f, reader=Pairs()), "(key, value): it must take 2 arguments"),
        (
            "mapper",
            lambda f: Job(steps={"main": Step(mapper=f, after=("a",)), "a": Step(mapper=mapper)}),
            "(key, value): it must take 2 arguments",
        ),
    ],
)
def test_every_function_of_a_step_is_checked(role: str, make: Callable[[Any], Job], call: str) -> None:
    def three(one: Any, two: Any, three: Any) -> Any: ...

    message = refusal(lambda: make(three))
    assert message.startswith(f"step 'main': the {role} three (")
    assert message.endswith(f"cannot be called as three{call}")


# --- one job after another ----------------------------------------------------------------------------


def following(**more: Any) -> Job:
    return Job(pair_mapper, reducer, reader=Pairs(), **more)


def test_then_makes_the_second_job_read_the_first() -> None:
    job = Job(mapper, reducer, name="count").then(following(name="top"))
    assert job.steps == {
        "count": Step(mapper=mapper, reducer=reducer),
        "top": Step(mapper=pair_mapper, reducer=reducer, after=("count",)),
    }
    assert (job.name, job.last_step) == ("count", "top")


def test_then_numbers_the_steps_whose_names_are_taken() -> None:
    once = Job(mapper, reducer).then(following())
    assert list(once.steps) == ["main", "main-2"]
    thrice = once.then(once_more := following()).then(once_more)
    assert list(thrice.steps) == ["main", "main-2", "main-3", "main-4"]
    assert [step.after for step in thrice.steps.values()] == [(), ("main",), ("main-2",), ("main-3",)]


def test_then_keeps_the_graph_of_the_second_job() -> None:
    second = Job(
        steps={
            "a": Step(mapper=pair_mapper, reader=Pairs()),
            "b": Step(mapper=pair_mapper, reader=Pairs()),
            "main": Step(reducer=reducer, after=("a", "b")),
        }
    )
    job = Job(mapper, reducer).then(second)
    assert {name: step.after for name, step in job.steps.items()} == {
        "main": (),
        "a": ("main",),
        "b": ("main",),
        "main-2": ("a", "b"),
    }
    assert job.last_step == "main-2"


def test_then_leaves_both_jobs_as_they_were() -> None:
    first, second = Job(mapper, reducer), following()
    first.then(second)
    assert (first, second) == (Job(mapper, reducer), following())


def test_then_unites_parameters_and_side_files() -> None:
    first = Job(mapper, reducer, params={"k": 1, "same": 0}, side_files={"a": "a.txt"}, max_attempts=7)
    job = first.then(following(params={"n": 2, "same": 0}, side_files={"b": "b.txt"}))
    assert job.params == {"k": 1, "n": 2, "same": 0}
    assert job.side_files == {"a": "a.txt", "b": "b.txt"}
    assert job.max_attempts == 7


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (following(params={"k": 2}), "both jobs set parameter 'k': 1 and 2"),
        (following(side_files={"a": "b.txt"}), "both jobs set side file 'a': 'a.txt' and 'b.txt'"),
        (
            Job(mapper, reader=Text()),
            "step 'main' reads single records, so it cannot follow another job; leave its reader out",
        ),
    ],
)
def test_then_refuses_what_does_not_fit(second: Job, message: str) -> None:
    first = Job(mapper, reducer, params={"k": 1}, side_files={"a": "a.txt"})
    assert refusal(lambda: first.then(second)).startswith(message)


def test_a_mapper_of_pairs_makes_a_job_that_can_stand_behind_another() -> None:
    second = Job(two, reducer, name="second")
    assert Job(mapper, reducer).then(second).steps["second"].after == ("main",)
    assert "it must take 1 argument" in refusal(second.check_inputs)


def test_a_mapper_of_records_cannot_stand_behind_another_job() -> None:
    assert "it must take 2 arguments" in refusal(lambda: Job(mapper, reducer).then(Job(mapper, name="b")))


def test_two_side_files_of_one_name_are_refused() -> None:
    with pytest.raises(JobDefinitionError, match="two have one name"):
        Job(lambda line: [(line, 1)], side_files=["old/stop.txt", "new/stop.txt"])


def test_a_job_is_followed_by_a_job_only() -> None:
    with pytest.raises(JobDefinitionError, match="expected a Job"):
        Job(lambda line: [(line, 1)]).then(len)  # type: ignore[arg-type]


def test_an_input_may_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    with Job(lambda line: [(line, 1)]).run(tmp_path / "in.txt") as result:
        assert list(result) == [("a", 1)]
