"""Moments at which a test may hurt this process: before a message is sent, and when one was heard.

The names are failpoints (`mapreduce.failpoints`); a message that is in no table has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapreduce import messages as m
from mapreduce.failpoints import failpoint
from membership.register_messages import Accept, Birth
from p2p import bulk as b

__all__ = ["before_sending", "on_hearing"]

_BEFORE_SENDING: Mapping[type, str] = {
    Birth: "birth.send",
    Accept: "commit.accept",
    m.AskInventory: "takeover.ask",
    m.Inventory: "takeover.tell",
    m.Offer: "offer.send",
    m.Claim: "claim.send",
    m.Grant: "grant.send",
    m.Finished: "finished.send",
    m.Settled: "settled.send",
    m.CopyOrder: "copy.order",
    m.Copied: "copy.done",
    m.Dissolve: "dissolve.send",
}
_ON_HEARING: Mapping[type, str] = {
    m.Grant: "grant.heard",
    m.Finished: "finished.heard",
    m.Dissolve: "dissolve.heard",
    b.Stored: "push.acked",
}


def before_sending(message: Any) -> None:
    """This message is about to be sent."""
    failpoint(_BEFORE_SENDING.get(type(message), ""))


def on_hearing(message: Any) -> None:
    """This message was heard, and nothing was done about it yet."""
    failpoint(_ON_HEARING.get(type(message), ""))
