"""An output's own file that becomes a segment where it lies, instead of being copied.

Theory
------
A child leaves the first `HEAD_BYTES` free in a file that holds one attempt's output and nothing else.  If
this peer is a place of the output, the header is written behind what is there and the head before it, and the
file gets a second name, in the store.  The first name goes when the attempt is settled; until then pushes to
others read what they need under it.  Nobody else writes to the file any more: it is adopted once, and what is
wanted of it besides, later, is copied.

A map task's file holds all partitions, and this peer may be a place of few.  One of which less than one byte
in `MOST_SPARE` is wanted is copied after all: the rest would take room until the stage is dropped.

⚙ This module writes files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from mapreduce.failpoints import failpoint
from p2p.disk import write_all
from p2p.segments import HEAD_BYTES, Header, Source, head_of

__all__ = ["adopt", "is_adoptable"]

MOST_SPARE: Final = 2


def is_adoptable(sources: Sequence[Source]) -> bool:
    """Tell whether the file that these sources lie in may become a segment."""
    if not sources or not all(source.is_alone for source in sources):
        return False
    path = sources[0].path
    if any(source.path != path for source in sources):
        return False
    try:
        found = os.stat(path)
    except OSError:
        return False  # whoever reads it will say why
    wanted_bytes = sum(source.entry.length for source in sources)
    return found.st_nlink == 1 and MOST_SPARE * wanted_bytes >= found.st_size - HEAD_BYTES


def adopt(path: str, header: bytes, parsed: Header, segment: str) -> bool:
    """Make a file a segment.

    Args:
        path: the file.
        header: as `heading` made it, and `parsed` what it says.
        segment: its name in the store.

    Returns:
        False if it has become one meanwhile, or was to become one before.

    Raises:
        OSError: it cannot become one: the file system knows no links, or is full or broken.  What is in the
            file stays where it is.
    """
    with open(path, "r+b", buffering=0) as file:
        found = os.fstat(file.fileno())
        if found.st_nlink != 1 or found.st_size != HEAD_BYTES + parsed.size:
            return False
        if any(file.read(HEAD_BYTES)):
            return False
        file.seek(found.st_size)
        write_all(file, header)
        file.seek(0)
        write_all(file, head_of(header))
    failpoint("store.adopt")
    os.link(path, segment)
    failpoint("store.adopted")
    return True
