"""A job's parameters: from `--param K=V` to values of the types the job expects.

A job declares its parameters by their defaults, in `Job(params={...})` or as the arguments of a function
`job(rounds=10)` that makes the job.  The default's type is the parameter's type; so user code never parses
text, and a misspelt name is found before any work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

from mapreduce.errors import JobDefinitionError
from mapreduce.job import Job
from mapreduce.spelling import closest

REQUIRED = object()
"""Stands for the default of an argument that has none."""

_YES, _NO = ("yes", "true", "on", "1"), ("no", "false", "off", "0")
_EXPECTED = {"bool": "yes or no", "int": "a whole number", "float": "a number"}


def typed_params(job: Job, params: Mapping[str, str], also: Iterable[str] = ()) -> dict[str, Any]:
    """Give parameters written as text the types of the job's defaults.

    Args:
        job: what declares them; if it declares none, any name is taken and its value stays text.
        params: {name: text}.
        also: further names that are declared elsewhere, for the message about a wrong one.

    Raises:
        JobDefinitionError: an undeclared name, or a text that does not fit the default's type.
    """
    declared = sorted({*job.params, *also})
    values: dict[str, Any] = {}
    for name, text in params.items():
        if name in job.params:
            values[name] = typed(name, text, job.params[name])
        elif declared:
            raise JobDefinitionError(
                f"the job has no parameter {name!r}{closest(name, declared)}; it has: {', '.join(declared)}"
            )
        else:
            values[name] = text
    return values


def arguments_of(function: FunctionType) -> dict[str, tuple[Any, str]]:
    """Return {argument: (default or `REQUIRED`, name of its annotated type or "")}.

    Raises:
        JobDefinitionError: it has arguments that cannot be given by name.
    """
    code = function.__code__
    takes_any = code.co_flags & 0x0C  # *args or **kwargs
    if code.co_posonlyargcount or takes_any:
        raise JobDefinitionError(
            f"{function.__name__}() makes a job, so it must take named arguments only: no *, ** or /"
        )
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = names[: code.co_argcount]
    defaults = dict(zip(reversed(positional), reversed(function.__defaults__ or ()), strict=False))
    defaults.update(function.__kwdefaults__ or {})
    return {
        name: (defaults.get(name, REQUIRED), _type_name(function.__annotations__.get(name))) for name in names
    }


def _type_name(annotation: Any) -> str:
    # With postponed evaluation an annotation is its source text.
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")


def typed(name: str, text: str, default: Any, annotation: str = "") -> Any:
    """Give one parameter its type: the default's, or the annotation's where there is no default.

    Anything but str, bool, int and float is written as JSON; where neither default nor annotation says
    what is wanted, a text that is no JSON stays text.

    Raises:
        JobDefinitionError: the text does not fit.
    """
    open_ended = default is None or default is REQUIRED
    kind = annotation if open_ended else type(default).__name__
    try:
        match kind:
            case "str":
                return text
            case "bool":
                return _bool(text)
            case "int":
                return int(text)
            case "float":
                return float(text)
            case _:
                return _open(text) if open_ended else _like(_json(text), default)
    except ValueError:
        because = f"it is declared {kind}" if open_ended else f"the default is {default!r}"
        expected = _EXPECTED.get(kind, f"JSON for a {kind}")
        raise JobDefinitionError(f"--param {name}={text}: expected {expected}, as {because}") from None


def _bool(text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise ValueError(text)
    return text.lower() in _YES


def _json(text: str) -> Any:
    import json

    return json.loads(text)


def _open(text: str) -> Any:
    try:
        return _json(text)
    except ValueError:
        return text


def _like(value: Any, default: Any) -> Any:
    if isinstance(default, tuple | set | frozenset) and isinstance(value, list):
        return type(default)(value)
    if not isinstance(value, type(default)):
        raise ValueError(value)
    return value
