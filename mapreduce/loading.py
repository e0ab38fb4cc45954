"""A job's code in this process, and what takes it to another one.

*Job files* are executed under one fixed module name, `JOB_MODULE`, with their directory first on the module
path.  So `if __name__ == "__main__":` does not fire, and a function of it is pickled as a plain reference
that resolves in every process that has loaded the file in the same way.

*Names.*  A file beside the job called string.py hides neither the standard library's module nor one of those
that we stand on: they are imported before its directory is put on the path.  Python's scripts go the other
way, but we import late, to start fast: which of the two a user got would depend on what we had imported
before, and would differ between parent and child.

*Packing.*  `Code` is what such a process needs.  Plain pickle is tried first; cloudpickle, whose import alone
costs a tenth of a small job, only carries what has no importable name: functions of `__main__`, lambdas,
closures, notebooks.

Loading and unpacking replace whatever job the process held before, with the modules that came from its
directory: a child that serves one job after another must not give the second the first one's helpers.

What user code raises meanwhile is the user's: one line with the user's own place in it, the frames that are
not ours as a note.

⚙ This module reads files, changes `sys.path` and `sys.modules`, and executes user code.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from mapreduce.errors import JobDefinitionError
from mapreduce.job import Job
from mapreduce.spelling import closest
from mapreduce.user_frames import frames_of, is_users

JOB_MODULE = "__ringreduce_job__"
OUR_PACKAGES = ("mapreduce", "membership", "p2p")

# Modules that no file of a job may hide.  The three that are left out act when they are imported, or are a
# usual name for a file of one's own.
_STOOD_ON = ("click", "cloudpickle", "fsspec", "msgpack", "networkx", "rich", "xxhash", "zmq", "zstandard")
_KEPT_NAMES = sys.stdlib_module_names.union(_STOOD_ON, OUR_PACKAGES) - {"antigravity", "test", "this"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What another process on this machine needs to have the job.

    Attributes:
        job: the pickled `Job`.
        file: absolute path of the job file, to be loaded as `JOB_MODULE` first; None: there is none.
        sys_path: entries to put first on the module path; the first is the job's own directory.
    """

    job: bytes
    file: str | None = None
    sys_path: tuple[str, ...] = ()


# -- executing user code ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Process:
    """What this process holds of a job, and what to undo before the next one."""

    loading_depth: int = 0
    path_entries: tuple[str, ...] = ()
    modules_before: frozenset[str] = frozenset()
    passed_over: frozenset[str] = frozenset()


_process = _Process()


def is_loading() -> bool:
    """True while a job's code is being imported, when `job.main()` in it must not start a job."""
    return _process.loading_depth > 0


def load_file(path: str, more_path: tuple[str, ...] = ()) -> ModuleType:
    """Execute a job file as the module `JOB_MODULE`, in place of any job that was loaded before.

    Args:
        path: the file.
        more_path: entries of the module path that the file may need behind its own directory.

    Raises:
        JobDefinitionError: it cannot be read or compiled, or it raises; the message says file and line.
    """
    try:
        with open(path, "rb") as file:
            source = file.read()
    except FileNotFoundError:
        directory, name = os.path.split(path)
        raise JobDefinitionError(
            f"there is no file {path}{closest(name, python_files(directory or '.'))}"
        ) from None
    except OSError as error:
        raise JobDefinitionError(f"cannot read {path}: {error.strerror}") from None
    absolute = os.path.abspath(path)
    try:
        program = compile(source, absolute, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # null bytes are the one or the other, by Python's version
        kind = "" if path.endswith(".py") else " (is it a Python file?)"
        raise JobDefinitionError(_syntax_error(error, path) + kind) from None
    replace_job(os.path.dirname(os.path.realpath(absolute)), *more_path)
    module = ModuleType(JOB_MODULE)
    module.__file__ = absolute
    module.__package__ = ""
    sys.modules[JOB_MODULE] = module
    with executing_user_code(path):
        exec(program, vars(module))
    return module


def python_files(directory: str) -> list[str]:
    """Return the names of the Python files in a directory, sorted; none if it cannot be read."""
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(".py"))
    except OSError:
        return []


def replace_job(*entries: str) -> None:
    """Put a job's directories first on the module path, and forget the job that was there before."""
    for name in own_modules():
        del sys.modules[name]
    sys.modules.pop(JOB_MODULE, None)
    for entry in _process.path_entries:
        if entry in sys.path:
            sys.path.remove(entry)
    _process.passed_over = _import_before(entries[0]) if entries else frozenset()
    # The first goes to the front even if it is on the path: it is the job's own.
    _process.path_entries = tuple(e for n, e in enumerate(entries) if n == 0 or e not in sys.path)
    _process.modules_before = frozenset(sys.modules)
    sys.path[:0] = _process.path_entries


def _import_before(directory: str) -> frozenset[str]:
    """Import the modules that files in a directory would hide; return their names."""
    import importlib

    if is_installed(os.path.realpath(directory)):
        return frozenset()
    try:
        entries = os.listdir(directory)
    except OSError:
        return frozenset()
    names = {
        stem
        for stem, ending in map(os.path.splitext, entries)
        if stem in _KEPT_NAMES
        and (ending == ".py" or os.path.exists(os.path.join(directory, stem, "__init__.py")))
    }
    before = sys.path[:]
    here = os.path.realpath(directory)  # a script's directory is on the path already
    sys.path[:] = [entry for entry in before if os.path.realpath(entry or ".") != here]
    try:
        for name in sorted(names.difference(sys.modules)):
            with suppress(ImportError):  # a module of another system
                importlib.import_module(name)
    finally:
        sys.path[:] = before
    return frozenset(names)


def own_modules() -> list[str]:
    """Return the modules that came from the job's own directory since the job was put in place."""
    if not _process.path_entries:
        return []
    root = os.path.realpath(_process.path_entries[0])
    if is_installed(root):
        return []
    return [
        name for name in list(sys.modules) if name not in _process.modules_before and _lies_in(root, name)
    ]


def _lies_in(root: str, name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(file, str) or name.partition(".")[0] in OUR_PACKAGES:
        return False
    stem = os.path.join(root, *name.split("."))
    return os.path.realpath(file) in (f"{stem}.py", os.path.join(stem, "__init__.py"))


def is_installed(directory: str) -> bool:
    """True for a directory of installed modules, which every machine is expected to have by itself."""
    parts = directory.split(os.sep)
    library = os.path.dirname(os.path.realpath(os.__file__))
    return "site-packages" in parts or "dist-packages" in parts or os.path.realpath(directory) == library


@contextmanager
def executing_user_code(label: str) -> Iterator[None]:
    """Turn whatever user code raises in the block into one line with the user's place in it.

    Raises:
        JobDefinitionError: with the traceback of the user's frames as a note, where that says more.
    """
    _process.loading_depth += 1
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a job file is the file's mistake, not our end
        _refuse(label, error)
    finally:
        _process.loading_depth -= 1


def _refuse(label: str, error: BaseException) -> NoReturn:
    frames = [part for part in frames_of(error.__traceback__) if is_users(part.tb_frame.f_code.co_filename)]
    place = label
    if frames:
        place = f"{near_path(frames[-1].tb_frame.f_code.co_filename)}, line {frames[-1].tb_lineno}"
    match error:
        case JobDefinitionError():
            message = f"{place}: {error}" if frames else str(error)
        case SyntaxError():  # in a module that the job imports
            message = f"{_syntax_error(error, label)} (imported from {place})"
        case ModuleNotFoundError(name=str(name)):
            message = (
                f"{place}: there is no module {name!r}: install it for {sys.executable}, "
                "or put it beside the job file"
            )
        case ImportError(name=str(name)) if name in _process.passed_over:
            message = (
                f"{place}: {error}: the file {name}.py beside the job has the name of another module, "
                "which comes first; rename it"
            )
        case ImportError() if "relative import" in str(error):
            message = (
                f"{place}: {error}: a job file that is part of a package is run by its module name, from "
                "the directory that holds the package: ringreduce run PACKAGE.MODULE"
            )
        case SystemExit():
            message = (
                f"{place}: the job ends the program (SystemExit: {error}) while it is loaded; "
                'what a script does belongs under  if __name__ == "__main__":'
            )
        case _:
            text = " ".join(str(error).split())
            refusal = JobDefinitionError(f"{place}: {type(error).__name__}{f': {text}' if text else ''}")
            refusal.add_note(_traceback_text(error))
            raise refusal from None
    raise JobDefinitionError(message) from None


def _syntax_error(error: SyntaxError | ValueError, path: str) -> str:
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return f"{path}: {error}"
    text = f": {error.text.strip()}" if error.text else ""
    return f"{near_path(error.filename or path)}, line {error.lineno}: {error.msg}{text}"


def name_of(place: str) -> str:
    """Return what a job is called that has no name of its own: as its file, module or example."""
    target, _, inside = place.rpartition(":")
    target = target if target and inside.isidentifier() else place
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", os.path.basename(near_path(target)).removesuffix(".py"))
    return stem.lstrip("_.-")[:64]


def near_path(file: str) -> str:
    """Return a path as a user would write it: relative where it lies below the current directory."""
    try:
        relative = os.path.relpath(file)
    except OSError:  # the current directory is gone
        return file
    return file if relative.startswith(os.pardir) else relative


def _traceback_text(error: BaseException) -> str:
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip("\n")


# -- to another process on this machine ---------------------------------------------------------------


class _ByValue(Exception):
    """Something in the job has no name by which another process could import it."""


class _ReferencePickler(pickle.Pickler):
    """A pickler that gives up at the first thing that lives in `__main__`: there is another one elsewhere."""

    def reducer_override(self, value: Any) -> Any:
        """Refuse functions and classes of `__main__`; leave the rest to pickle."""
        if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
            raise _ByValue
        return NotImplemented


def pack(job: Job, *, file: str | None = None, directory: str | None = None) -> Code:
    """Make of a job what a child process can `unpack`.

    Args:
        job: the job.
        file: the job file; default: the one that is loaded, if the job refers to it.
        directory: where the job's own modules lie; default: the running script's directory.

    Raises:
        JobDefinitionError: something in it cannot be pickled, or a job file starts a job while it is loaded.
    """
    if is_loading():
        raise JobDefinitionError(
            "a job is started while its file is being loaded; what a script does belongs under "
            ' if __name__ == "__main__":'
        )
    pickled = _pickled(job)
    if file is None and JOB_MODULE.encode() in pickled and JOB_MODULE in sys.modules:
        file = sys.modules[JOB_MODULE].__file__
    path = [*([directory] if directory is not None else []), *sys.path]
    return Code(
        job=pickled,
        file=os.path.abspath(file) if file is not None else None,
        sys_path=tuple(dict.fromkeys(os.path.abspath(entry) for entry in path)),
    )


def repack(job: Job, code: Code) -> Code:
    """Return `code` for a job that differs from the packed one in its settings only."""
    return replace(code, job=_pickled(job))


def _pickled(job: Job) -> bytes:
    stream = BytesIO()
    try:
        _ReferencePickler(stream, protocol=5).dump(job)
        return stream.getvalue()
    except Exception:
        pass  # lambdas, open files, locks: each its own kind; what cannot go by value either is refused below
    import cloudpickle

    try:
        pickled: bytes = cloudpickle.dumps(job, protocol=5)
    except Exception as error:  # whatever a user's own __reduce__ raises is the user's
        raise JobDefinitionError(
            f"job {job.name!r} cannot travel to another process: {error}; "
            "open files, locks and connections belong into setup()"
        ) from None
    return pickled


def unpack(code: Code) -> Job:
    """Rebuild a job in a child process.

    It opens a pickle: only for what this user's own process packed, or what an authorised submitter sent
    and whose digest was checked.

    Raises:
        JobDefinitionError: the job's code does not load here as it did there.
    """
    if code.file is not None:
        load_file(code.file, code.sys_path)
    else:
        replace_job(*code.sys_path)
    with executing_user_code(code.file or "the job"):
        job = pickle.loads(code.job)
    assert isinstance(job, Job)
    return job
