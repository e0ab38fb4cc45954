"""Which frames of a traceback are the user's: neither ours nor those of the machinery that imports.

The shipped examples are user code like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_EXAMPLES = os.path.join(_OURS, "examples") + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = (_STANDARD_LIBRARY + "site-packages", _STANDARD_LIBRARY + "dist-packages")


def is_users(file: str) -> bool:
    """Whether a frame of this file is to be shown to the user, as theirs or as what they call."""
    ours = file.startswith(_OURS) and not file.startswith(_EXAMPLES)
    return not ours and not file.startswith("<frozen") and f"{os.sep}importlib{os.sep}" not in file


def begins_users(file: str) -> bool:
    """Whether this is user code for certain: the standard library is called by us, too."""
    if file.startswith(_STANDARD_LIBRARY):
        return file.startswith(_INSTALLED)
    return is_users(file)


def frames_of(trace: TracebackType | None) -> Iterator[TracebackType]:
    """Yield a traceback's frames, outermost first."""
    while trace is not None:
        yield trace
        trace = trace.tb_next
