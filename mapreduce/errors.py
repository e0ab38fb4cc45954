"""What can go wrong with a job, sorted by whose fault it is.

Every error answers three questions: whose fault it is (the class), whether another attempt could go
better (`may_retry`), and what the command line should exit with (`exit_code`).  Nothing here has an
effect outside the process, so "did it take effect" is always no: outputs become visible only by the
rename that follows the last successful step.

A child process cannot raise into its parent, so an error that has to cross is turned into a plain
record by `to_record` and back by `from_record`; tracebacks travel as text, never as pickles.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, ClassVar


class JobError(Exception):
    """Base of all errors that a job's user may meet; `str(error)` is one line that says what and where."""

    exit_code: ClassVar[int] = 1
    may_retry: ClassVar[bool] = False


class UsageError(JobError):
    """The request itself is wrong; nothing was started and nothing written."""

    exit_code = 2


class JobDefinitionError(UsageError):
    """The job is not one: a missing mapper, a wrong arity, a cycle of steps, a file that does not import."""


class InputError(UsageError):
    """An input is missing, cannot be opened, or does not hold what its reader expects."""


class OutputError(UsageError):
    """The output directory cannot be used."""


class BadKey(UsageError):
    """User code yielded a key that cannot be a key (NaN, a list, an object)."""


class BadValue(UsageError):
    """User code yielded a value that cannot be encoded."""


class TaskFailed(JobError):
    """User code failed in every attempt a task was given.

    `summary` is the one line, `details` what follows it on the screen: the user's own traceback, the
    last lines the task printed.
    """

    def __init__(self, summary: str, details: str = "") -> None:
        super().__init__(summary)
        self.details = details


class TooManyBadRecords(TaskFailed):
    """`on_bad_record="skip:N"` met more than N bad records."""


class EnvironmentFailed(JobError):
    """The machine said no: a full disk, no memory, no more processes.  Another attempt may go better."""

    may_retry = True


class Interrupted(JobError):
    """The user pressed Ctrl-C, or the process was told to end."""

    exit_code = 130


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_TOO_MANY_PROCESSES = (errno.EAGAIN, errno.ENOMEM)


def told(error: OSError) -> str:
    """Say in one line what the machine refused, of which file, and what may help."""
    where = f" ({error.filename})" if error.filename else ""
    remedy = ""
    if error.errno in _FULL:
        remedy = ": free some space or choose another place with --temp-dir or -o"
    elif error.errno in _TOO_MANY_FILES:
        where = ""  # which one was the last straw tells nothing
        remedy = ": allow more open files (ulimit -n), or use fewer workers (-j)"
    elif error.errno in _TOO_MANY_PROCESSES:
        remedy = ": use fewer workers (-j)"
    return f"{error.strerror or error}{where}{remedy}"


_BY_NAME: dict[str, type[JobError]] = {
    c.__name__: c
    for c in (
        JobError,
        UsageError,
        JobDefinitionError,
        InputError,
        OutputError,
        BadKey,
        BadValue,
        TaskFailed,
        TooManyBadRecords,
        EnvironmentFailed,
    )
}


def to_record(error: JobError) -> dict[str, str]:
    """Turn an error into strings that any process can rebuild it from."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "details": error.details if isinstance(error, TaskFailed) else "",
    }


def from_record(record: Mapping[str, Any]) -> JobError:
    """Rebuild what `to_record` made; an unknown type becomes a plain `JobError`."""
    kind = _BY_NAME.get(str(record["type"]), JobError)
    if issubclass(kind, TaskFailed):
        return kind(str(record["message"]), str(record["details"]))
    return kind(str(record["message"]))
