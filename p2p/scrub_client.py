"""Has one peer read through what it holds, and waits for the end of it.

⚙ Waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from p2p.client import Client
from p2p.errors import NoPeerReached
from p2p.ring_questions import AskScrub, ScrubIs

__all__ = ["scrub_all"]

PAUSE_S = 0.1
# Longer than the largest segment takes at a share of the pace of repairs.
STALLED_S = 600.0


def scrub_all(
    client: Client,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> ScrubIs:
    """Have the peer that a client talks to read all that it holds, and return what came of it.

    How long that takes is bounded by what lies with the peer when it begins; one that dies ends it, and so
    does one that reads nothing to its end for `STALLED_S`.

    Args:
        client: of the peer.
        clock: monotonic seconds.
        pause: waits so many seconds between two questions.

    Raises:
        NoPeerReached: it does not answer, not any more, began anew meanwhile, or cannot read on.
        RequestRefused: it will not.
    """
    told = client.ask(AskScrub(number=0, begins=True), ScrubIs)
    moved_at = clock()
    while told.waiting:
        pause(PAUSE_S)
        before, told = told, client.ask(AskScrub(number=0, begins=False), ScrubIs)
        if told.checked < before.checked:
            raise NoPeerReached("the peer began anew before it had read all that it holds")
        if (told.checked, told.waiting) != (before.checked, before.waiting):
            moved_at = clock()
        elif clock() - moved_at > STALLED_S:
            raise NoPeerReached(f"the peer has read nothing for {STALLED_S:g} s: look at its open files")
    return told
