"""From JOB, as a user names it, to a `Job`.

JOB is looked for in this order:

1. it ends in .py, has a slash, or is a file: that file;
2. the name of a shipped example, with or without `-` and `_`;
3. a module, with the current directory on the module path.

Which object in it is the job:

1. the one that `JOB:NAME` names;
2. `job`: a `Job`, or a function that makes one and whose named arguments are parameters;
3. the only `Job` there is;
4. the module itself, if it defines `mapper`, with `reducer` and whatever else `Job` takes.

⚙ This module looks at files and loads user code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from types import FunctionType, ModuleType
from typing import Any

from mapreduce.errors import JobDefinitionError
from mapreduce.job import Job, Step
from mapreduce.loading import Code, executing_user_code, load_file, name_of, pack, python_files, replace_job
from mapreduce.parameters import REQUIRED, arguments_of, typed, typed_params
from mapreduce.spelling import closest

_EXAMPLES = "mapreduce.examples"
_EXAMPLES_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "examples")

# What a module without a `Job` may define; the names are those of `Job`'s arguments.
_PLAIN_NAMES = (
    "mapper",
    "reducer",
    "combiner",
    "partitioner",
    "partitions",
    "sort_values",
    "setup",
    "teardown",
    "reader",
    "on_bad_record",
    "params",
    "side_files",
    "max_attempts",
)


def load(argument: str, params: Mapping[str, str]) -> tuple[Job, Code, dict[str, Any]]:
    """Find and load a job.

    Args:
        argument: FILE.py, the name of a shipped example, or a module; perhaps with ":NAME" behind it.
        params: values as written on a command line.

    Returns:
        The job; its code for child processes; and the given params in the types of the job's defaults.

    Raises:
        JobDefinitionError: there is no such job, it does not import, or a parameter does not fit.
    """
    target, name = _split_name(argument)
    if _names_file(target):
        file = os.path.abspath(target)  # first: the job file may change the current directory
        module = load_file(target)
        directory = os.path.dirname(os.path.realpath(file))
    else:
        module, file = _load_named(target), None
        directory = _import_root(module)
    job, values = _job_in(module, target, name, params)
    job.check_inputs()
    return job, pack(job, file=file, directory=directory), values


def load_own(job: Job, params: Mapping[str, str]) -> tuple[Job, Code, dict[str, Any]]:
    """Load the job that the running script holds, as `load` would, given the script's name.

    A job that the script does not hold when it is loaded as a job file (it was made under the `__main__`
    guard, in a function, or in a notebook) is carried by value instead.

    Raises:
        JobDefinitionError: as in `load`.
    """
    main = sys.modules["__main__"]
    names = [name for name, value in vars(main).items() if value is job]
    spec = getattr(main, "__spec__", None)  # `python -m`: to be found as a module, not as a file
    place = spec.name if spec is not None else getattr(main, "__file__", None)
    if names and place is not None:
        try:
            loaded, code, values = load(f"{place}:{names[0]}", params)
        except JobDefinitionError:
            pass  # not there without the guard; anything else wrong would have stopped the script before
        else:
            if _same_job(job, loaded):
                return loaded, code, values
    return job, pack(job), typed_params(job, params)


def examples() -> list[str]:
    """Return the names of the shipped example jobs, sorted."""
    return [
        name.removesuffix(".py") for name in python_files(_EXAMPLES_DIRECTORY) if not name.startswith("_")
    ]


def example_named(target: str) -> str | None:
    """Return the example that `target` stands for, with or without `-` and `_`; None if there is none."""
    return {_folded(name): name for name in examples()}.get(_folded(target))


def _folded(name: str) -> str:
    return name.replace("-", "").replace("_", "")


def examples_text() -> str:
    """Return the examples, one a line, each with the first line of its description."""
    import ast

    lines = []
    for name in examples():
        with open(os.path.join(_EXAMPLES_DIRECTORY, f"{name}.py"), encoding="utf-8") as file:
            description = (ast.get_docstring(ast.parse(file.read())) or "").partition("\n")[0]
        lines.append(f"  {name:<18} {description}")
    return "\n".join(lines)


# -- which file or module -----------------------------------------------------------------------------


def _split_name(argument: str) -> tuple[str, str | None]:
    target, colon, name = argument.rpartition(":")
    if colon and target and name.isidentifier() and not os.path.exists(argument):
        return target, name
    return argument, None


def _names_file(target: str) -> bool:
    """Tell a file from a module or an example; a directory that is neither is refused."""
    if not os.path.isdir(target):
        return target.endswith(".py") or os.sep in target or os.path.exists(target)
    is_package = os.path.exists(os.path.join(target, "__init__.py"))
    if os.sep not in target and (is_package or example_named(target)):
        return False
    inside = [os.path.join(target, name) for name in python_files(target)]
    hint = f"name a Python file in it, such as {inside[0]}" if inside else "name a Python file"
    raise JobDefinitionError(f"{target} is a directory, not a job: {hint}")


def _load_named(target: str) -> ModuleType:
    import importlib

    example = example_named(target)
    name = f"{_EXAMPLES}.{example}" if example else target
    if not all(part.isidentifier() for part in name.split(".")):
        raise _no_such_job(target)
    if not example:
        replace_job(os.getcwd())
    with executing_user_code(target):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{name}.".startswith(f"{error.name}."):
                raise _no_such_job(target) from None
            raise


def _no_such_job(target: str) -> JobDefinitionError:
    return JobDefinitionError(
        f"there is no job {target!r}{closest(target, [*examples(), *python_files('.')])}: JOB is a Python "
        f"file, a module or an example: {', '.join(examples()) or 'none'}"
    )


def _import_root(module: ModuleType) -> str:
    """Return the directory on the module path under which a module was found."""
    file = os.path.realpath(module.__file__ or ".")
    levels = module.__name__.count(".") + (2 if os.path.basename(file) == "__init__.py" else 1)
    for _ in range(levels):
        file = os.path.dirname(file)
    return file


# -- which object -------------------------------------------------------------------------------------


def _job_in(
    module: ModuleType, label: str, name: str | None, params: Mapping[str, str]
) -> tuple[Job, dict[str, Any]]:
    members = vars(module)
    jobs = {key: value for key, value in members.items() if isinstance(value, Job)}
    if name is not None:
        if name not in members:
            raise JobDefinitionError(f"{label} has no {name!r}{closest(name, list(jobs))}")
        return _job_of(members[name], f"{label}:{name}", params)
    if isinstance(members.get("job"), Job | FunctionType):
        return _job_of(members["job"], f"{label}:job", params)
    if len({id(job) for job in jobs.values()}) > 1:
        choices = " or ".join(f"{label}:{key}" for key in jobs)
        raise JobDefinitionError(f"{label} holds several jobs; say which: {choices}")
    if jobs:
        return _job_of(next(iter(jobs.values())), label, params)
    if callable(members.get("mapper")):
        with executing_user_code(label):
            job = _plain_job(members, label)
        return job, typed_params(job, params)
    if callable(members.get("reducer")):
        raise JobDefinitionError(f"{label} has a reducer but no mapper")
    raise JobDefinitionError(
        f"{label} holds no job: define mapper(record) and perhaps reducer(key, values), "
        "or  job = Job(mapper=…, reducer=…)"
    )


def _job_of(value: Any, label: str, params: Mapping[str, str]) -> tuple[Job, dict[str, Any]]:
    if isinstance(value, Job):
        return value, typed_params(value, params)
    if not isinstance(value, FunctionType):
        raise JobDefinitionError(f"{label} is {type(value).__name__}, not a Job or a function that makes one")
    wanted = arguments_of(value)
    given = {key: typed(key, text, *wanted[key]) for key, text in params.items() if key in wanted}
    missing = [key for key, (default, _) in wanted.items() if default is REQUIRED and key not in given]
    if missing:
        raise JobDefinitionError(f"{label}() needs a value: --param {missing[0]}=…")
    with executing_user_code(label):
        job = value(**given)
    if not isinstance(job, Job):
        raise JobDefinitionError(f"{label}() returned {type(job).__name__}, not a Job")
    rest = {key: text for key, text in params.items() if key not in wanted}
    return job, {**given, **typed_params(job, rest, also=wanted)}


def _plain_job(members: Mapping[str, Any], label: str) -> Job:
    """Make a job of a module's `mapper`, `reducer` and so on."""
    # `from mapreduce import reader` leaves a decorator under a name that a reader could have.
    arguments = {key: members[key] for key in _PLAIN_NAMES if key in members and not _is_ours(members[key])}
    return Job(**arguments, name=name_of(label) or None)


def _is_ours(value: Any) -> bool:
    return isinstance(value, FunctionType) and value.__module__ == "mapreduce.readers"


def _same_job(one: Job, other: Job) -> bool:
    """True when both were made by the same source; False when in doubt."""
    if list(one.steps) != list(other.steps):
        return False
    pairs: list[tuple[Job | Step, Job | Step]] = [(one, other)]
    pairs += zip(one.steps.values(), other.steps.values(), strict=True)
    return all(
        _same(getattr(here, field.name), getattr(there, field.name))
        for here, there in pairs
        for field in fields(here)
        if field.name != "steps"
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        return (
            one.__qualname__ == other.__qualname__
            and one.__code__ == other.__code__
            and one.__closure__ is other.__closure__ is None
            and _same(one.__defaults__, other.__defaults__)
            and _same(one.__kwdefaults__, other.__kwdefaults__)
        )
    try:
        return bool(one == other)
    except Exception:  # arrays, and whatever else does not compare to one truth
        return False
