"""From an attempt's failure to the end of a job: what may be tried again, and what a user gets to read.

The embedded engine words its errors in `mapreduce.local`; these are the same, with the peer's name.
"""

from __future__ import annotations

from dataclasses import replace

from mapreduce.errors import JobError, from_record
from mapreduce.outcome import Failure, StageKind

__all__ = ["INPUT_GONE", "NOT_BEGUN", "error_of", "final_failure", "is_innocent", "may_retry"]

# Failures that are not the task's: a part or a run that was not where it should be; a child that ended
# before it came to the task.
INPUT_GONE = "InputGone"
NOT_BEGUN = "NotBegun"

_RETRIED = ("UserCode", "Died", "EnvironmentFailed")


def is_innocent(failure: Failure) -> bool:
    """Whether a failure is nobody's fault and does not count as an attempt."""
    return failure.kind in (INPUT_GONE, NOT_BEGUN)


def may_retry(failure: Failure) -> bool:
    """Whether another attempt may go better."""
    return is_innocent(failure) or failure.kind in _RETRIED


def final_failure(
    failure: Failure, step: str, kind: StageKind, task: int, tried: int, max_attempts: int
) -> Failure:
    """Make of a task's last failure the one that ends the job: it names step, task, attempt and peer."""
    # Here: whoever is only told of failures, as a client is, needs nothing of stages.
    from mapreduce.stages import task_name

    where = f"step {step!r}, task {task_name(kind, task)}"
    at = f" at {failure.position}" if failure.position else ""
    on = f" on {failure.node}" if failure.node else ""
    if failure.kind in ("UserCode", "Died"):
        details = failure.details
        if failure.kind == "Died" and details:
            details = "the last it printed:\n" + details
        message = f"{where}, attempt {tried} of {max_attempts}{on}{at}: {failure.message}"
        return replace(failure, kind="TaskFailed", message=message, details=details)
    if failure.kind == "InputError":
        return failure  # it names file and place itself
    return replace(failure, message=f"{where}{on}{at}: {failure.message}")


def error_of(failure: Failure) -> JobError:
    """Return the exception that the embedded engine would raise for a job's failure."""
    record = {"type": failure.kind, "message": failure.message, "details": failure.details}
    return from_record(record)
