"""What a client and a peer say to each other, as far as one client needs it.

A class of messages costs half a millisecond to make and its schema some more, which is most of what a short
command does.  So a client names its topics, and imports and compiles nothing else: not the other topics, and
nothing that peers say among themselves (`p2p.protocol` has all of it).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from p2p.questions import COMMON_KINDS
from p2p.wire import Kind, WireFormat

__all__ = ["Topic", "client_wire_format"]

Topic = Literal["ring", "jobs", "files"]


@cache
def client_wire_format(topics: frozenset[Topic]) -> WireFormat:
    """The wire format of a client that asks about these topics."""
    kinds: list[Kind] = [*COMMON_KINDS]
    if "ring" in topics:
        from p2p.ring_questions import RING_KINDS

        kinds += RING_KINDS
    if "jobs" in topics:
        from p2p.job_questions import QUESTION_KINDS

        kinds += QUESTION_KINDS
    if "files" in topics:
        from p2p.file_questions import FILE_KINDS

        kinds += FILE_KINDS
    return WireFormat(kind for kind in kinds if kind.tag < 120)  # what is above is among peers
