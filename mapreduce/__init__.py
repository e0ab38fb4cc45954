"""What a job is and how it runs, in one process or as a leader and workers.

    from mapreduce import Job

The names below are loaded when first used: a child process that runs one mapper should not import
what only the engine needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapreduce.context import task
    from mapreduce.errors import JobError
    from mapreduce.job import Job, Step, TotalOrder, batch, identity
    from mapreduce.readers import Csv, FixedLength, JsonLines, Pairs, Text, WholeFile, reader

__all__ = [
    "Csv",
    "FixedLength",
    "Job",
    "JobError",
    "JsonLines",
    "Pairs",
    "Step",
    "Text",
    "TotalOrder",
    "WholeFile",
    "batch",
    "identity",
    "reader",
    "task",
]

_HOME = {
    "JobError": "errors",
    "Job": "job",
    "Step": "job",
    "TotalOrder": "job",
    "batch": "job",
    "identity": "job",
    "task": "context",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"mapreduce.{_HOME.get(name, 'readers')}"), name)
    globals()[name] = value
    return value
