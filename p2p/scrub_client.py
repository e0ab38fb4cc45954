"""Has one peer read through what it holds, and waits for the end of it.

⚙ Waits.
"""

from __future__ import annotations

import time

from p2p.client import Client
from p2p.errors import NoPeerReached
from p2p.ring_questions import AskScrub, ScrubIs

__all__ = ["scrub_all"]

PAUSE_S = 0.1


def scrub_all(client: Client) -> ScrubIs:
    """Have the peer that a client talks to read all that it holds, and return what came of it.

    How long that takes is bounded by what lies with the peer when it begins; one that dies ends it.

    Raises:
        NoPeerReached: it does not answer, not any more, or began anew meanwhile.
        RequestRefused: it will not.
    """
    told = client.ask(AskScrub(number=0, begins=True), ScrubIs)
    while told.waiting:
        time.sleep(PAUSE_S)
        before, told = told.checked, client.ask(AskScrub(number=0, begins=False), ScrubIs)
        if told.checked < before:
            raise NoPeerReached("the peer began anew before it had read all that it holds")
    return told
