"""The names of the faults a world knows; each is counted under its name when it really happened."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["COMMANDS", "Fault"]


class Fault(StrEnum):
    """One way in which a world can hurt the code in it."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    DELAY = "delay"
    CLOG = "clog"
    CUT = "one-way cut"
    PARTITION = "partition"
    REPLAY = "late replay"
    CRASH = "crash, disk kept"
    WIPE = "crash, disk lost"
    TORN = "crash between effects"
    PAUSE = "pause"
    SKEW = "clock skew"
    STEP = "clock step"
    MOVE = "restart elsewhere"
    LEAVE = "leave"
    CHANGE = "record changed"
    DOUBLE = "second process"


COMMANDS = frozenset({Fault.LEAVE, Fault.CHANGE, Fault.DOUBLE})
"""What only the scenario knows how to do: no accidents, but orders given in the midst of them."""
