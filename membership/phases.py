"""What a proposer does, one thing at a time: the table of its phases.

=========  ============  =========  ===================================================================
phase      step          next       what happens
=========  ============  =========  ===================================================================
IDLE       FOUND         FOUNDING   send the founder's record to the members of the first epoch
IDLE       WANT          PREPARING  take a ballot above all seen; ask all members to promise
FOUNDING   BORN          IDLE       a majority holds the epoch's first record; work goes on from here
PREPARING  PROMISED      ACCEPTING  a majority promised: derive from the record accepted highest
HOLDING    WANT          ACCEPTING  derive from what we know chosen; the promise is ours already
ACCEPTING  CHOSEN        HOLDING    a majority accepted: report the changes
ACCEPTING  SEALED        FOUNDING   the same, but the record is sealed: give birth to the next epoch
any round  OUTBID        RESTING    a majority is out of reach below a higher ballot: rest at random
RESTING    WANT          PREPARING  try again, higher
any        MOVE          IDLE       another group keeps the key: begin anew with that one
any        GIVE_UP       IDLE       outbid while leading, or too often: abandon all changes
=========  ============  =========  ===================================================================

"Any round" is one of the three in which answers are awaited (`IN_A_ROUND`).
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["IN_A_ROUND", "NEXT", "Phase", "Step"]


class Phase(StrEnum):
    """What a proposer is doing."""

    IDLE = "idle"
    FOUNDING = "founding"
    PREPARING = "preparing"
    ACCEPTING = "accepting"
    HOLDING = "holding"
    RESTING = "resting"


class Step(StrEnum):
    """What makes it do something else."""

    FOUND = "found"
    WANT = "want"
    BORN = "born"
    PROMISED = "promised"
    CHOSEN = "chosen"
    SEALED = "sealed"
    OUTBID = "outbid"
    MOVE = "move"
    GIVE_UP = "give up"


NEXT: dict[tuple[Phase, Step], Phase] = {
    (Phase.IDLE, Step.FOUND): Phase.FOUNDING,
    (Phase.IDLE, Step.WANT): Phase.PREPARING,
    (Phase.FOUNDING, Step.BORN): Phase.IDLE,
    (Phase.PREPARING, Step.PROMISED): Phase.ACCEPTING,
    (Phase.HOLDING, Step.WANT): Phase.ACCEPTING,
    (Phase.ACCEPTING, Step.CHOSEN): Phase.HOLDING,
    (Phase.ACCEPTING, Step.SEALED): Phase.FOUNDING,
    (Phase.PREPARING, Step.OUTBID): Phase.RESTING,
    (Phase.ACCEPTING, Step.OUTBID): Phase.RESTING,
    (Phase.RESTING, Step.WANT): Phase.PREPARING,
    **{(phase, step): Phase.IDLE for phase in Phase for step in (Step.MOVE, Step.GIVE_UP)},
}

IN_A_ROUND = (Phase.FOUNDING, Phase.PREPARING, Phase.ACCEPTING)
