"""Parameters get the types that the job expects."""

from __future__ import annotations

from typing import Any

import pytest

from mapreduce import Job
from mapreduce.errors import JobDefinitionError
from mapreduce.parameters import REQUIRED, arguments_of, typed, typed_params


def job(**params: Any) -> Job:
    return Job(mapper=lambda line: [(line, 1)], params=params)


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (10, "7", 7),
        (0.85, "1", 1.0),
        ("x", "7", "7"),
        (False, "yes", True),
        (True, "0", False),
        (True, "FALSE", False),
        (["a"], '["b", "c"]', ["b", "c"]),
        (("a",), '["b"]', ("b",)),
        ({}, '{"k": 1}', {"k": 1}),
        (None, "plain text", "plain text"),
        (None, "3", 3),
    ],
)
def test_a_value_takes_the_type_of_its_default(default: Any, text: str, value: Any) -> None:
    found = typed_params(job(name=default), {"name": text})["name"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("default", "text", "expected"),
    [
        (10, "abc", r"expected a whole number, as the default is 10"),
        (10, "1.5", "a whole number"),
        (0.5, "x", "a number"),
        (True, "maybe", "yes or no"),
        (["a"], "b", "JSON for a list"),
        (["a"], '{"a": 1}', "JSON for a list"),
    ],
)
def test_a_value_that_does_not_fit_says_what_was_expected(default: Any, text: str, expected: str) -> None:
    with pytest.raises(JobDefinitionError, match=expected):
        typed_params(job(name=default), {"name": text})


def test_an_undeclared_name_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(JobDefinitionError, match=r"no parameter 'round' \(did you mean 'rounds'\?\)"):
        typed_params(job(rounds=10), {"round": "3"})


def test_a_job_that_declares_nothing_takes_any_name_as_text() -> None:
    assert typed_params(job(), {"anything": "3"}) == {"anything": "3"}


def test_the_arguments_of_a_function_are_parameters_with_default_or_annotation() -> None:
    def make(rounds: int, damping=0.85, *, name: str = "x", flag: bool): ...

    assert arguments_of(make) == {
        "rounds": (REQUIRED, "int"),
        "damping": (0.85, ""),
        "name": ("x", "str"),
        "flag": (REQUIRED, "bool"),
    }
    assert typed("rounds", "3", *arguments_of(make)["rounds"]) == 3
    with pytest.raises(JobDefinitionError, match="as it is declared int"):
        typed("rounds", "x", *arguments_of(make)["rounds"])


def test_a_function_with_open_ended_arguments_is_refused() -> None:
    def make(**anything): ...

    with pytest.raises(JobDefinitionError, match="named arguments only"):
        arguments_of(make)
