"""What a child process must hold before it can run an order: a job's code, and a step's settings.

A pool of children serves many jobs, and a load may be megabytes while an order is a few hundred bytes.  So a
load is packed once, is sent to a child only when its next order has another one than its last, and is told
from others by identity, not by its bytes.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapreduce.loading import Code

__all__ = ["Load", "packed_code"]


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What a child must hold to run an order; compared by identity, so make one and use it for all.

    Attributes:
        code: the packed job, see `packed_code`.
        setup: the packed step; empty for what needs none.
        work_dir: the step's.
        task_timeout_s: a task that runs longer is ended; None for no limit.
    """

    code: bytes
    setup: bytes = b""
    work_dir: str = ""
    task_timeout_s: float | None = None


def packed_code(code: Code) -> bytes:
    """Return a job's code as children take it; one object for all loads of a job."""
    return pickle.dumps(pickle.dumps(code))
