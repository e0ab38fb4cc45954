"""Whole outputs that are wanted here and lie elsewhere: specs, and parts that a later step reads.

A holder is asked to send what is wanted as a transfer (`p2p.bulk`); it arrives in the store like every other
output.  One that does not hold it says so, one of which nothing comes for `PATIENCE_S` or that dies is given
up, and the next one is asked; each is asked `ROUNDS` times before the fetch has failed.  As long as bytes of
it arrive nobody else is asked: on a slow link that would make everything slower still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from membership.view import NodeId
from p2p.job_inquiries import FetchSegment, NotHeld

__all__ = ["PATIENCE_S", "FetchEnded", "Fetches"]

PATIENCE_S = 10.0
PAUSE_S = 0.2
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """What was wanted is here (`reason` ""), or nobody gives it."""

    tag: object
    reason: str


@dataclass(slots=True)
class _Wanted:
    job: str
    stage: int
    attempt: int
    holders: list[NodeId]  # those still to be asked, in order
    tags: list[object]
    asked: NodeId | None = None
    next_at: float = 0.0


class Fetches:
    """What this peer waits for.  Pure: `ask` is what it wants sent, returned by `tick` and `on_not_held`."""

    def __init__(self) -> None:
        self._wanted: dict[int, _Wanted] = {}
        self._number = 0

    def want(
        self, job: str, stage: int, attempt: int, holders: Sequence[NodeId], tag: object, now: float
    ) -> None:
        """Begin to fetch; `FetchEnded` will bear the tag. Two wishes for one output are one fetch."""
        for wanted in self._wanted.values():
            if (wanted.job, wanted.stage, wanted.attempt) == (job, stage, attempt):
                wanted.tags.append(tag)
                wanted.holders += [node for node in holders if node not in wanted.holders]
                return
        self._number += 1
        self._wanted[self._number] = _Wanted(job, stage, attempt, list(holders) * ROUNDS, [tag], next_at=now)

    def comes(self, job: str, stage: int, attempts: Sequence[int], now: float) -> None:
        """Bytes of these outputs have arrived a moment ago: who sends them is waited for."""
        for wanted in self._wanted.values():
            is_asked = wanted.asked is not None and (wanted.job, wanted.stage) == (job, stage)
            if is_asked and wanted.attempt in attempts:
                wanted.next_at = max(wanted.next_at, now + PATIENCE_S)

    def arrived(self, job: str, stage: int, attempt: int) -> list[FetchEnded]:
        """This output lies here now."""
        ended: list[FetchEnded] = []
        for number, wanted in list(self._wanted.items()):
            if (wanted.job, wanted.stage, wanted.attempt) == (job, stage, attempt):
                del self._wanted[number]
                ended += [FetchEnded(tag, "") for tag in wanted.tags]
        return ended

    def wanted(self) -> list[tuple[str, int, int]]:
        """Return (job, stage, attempt) of all that is waited for."""
        return [(one.job, one.stage, one.attempt) for one in self._wanted.values()]

    def on_not_held(self, message: NotHeld, sender: NodeId, now: float) -> None:
        """Somebody does not have it."""
        wanted = self._wanted.get(message.number)
        if wanted is not None and wanted.asked == sender:
            wanted.next_at = now if wanted.holders else now + PAUSE_S

    def peer_is_gone(self, node: NodeId, now: float) -> None:
        """Ask somebody else."""
        for wanted in self._wanted.values():
            wanted.holders = [holder for holder in wanted.holders if holder != node]
            if wanted.asked == node:
                wanted.next_at = now

    def tick(self, now: float) -> tuple[list[tuple[NodeId, FetchSegment]], list[FetchEnded]]:
        """Return whom to ask for what, and what has failed."""
        asked: list[tuple[NodeId, FetchSegment]] = []
        ended: list[FetchEnded] = []
        for number, wanted in list(self._wanted.items()):
            if wanted.next_at > now:
                continue
            if not wanted.holders:
                del self._wanted[number]
                ended += [FetchEnded(tag, "nobody has it") for tag in wanted.tags]
                continue
            wanted.asked = wanted.holders.pop(0)
            wanted.next_at = now + PATIENCE_S
            question = FetchSegment(number=number, job=wanted.job, stage=wanted.stage, attempt=wanted.attempt)
            asked.append((wanted.asked, question))
        return asked, ended

    def drop_job(self, job: str) -> None:
        """Nothing of this job is wanted any more; no event will speak of it."""
        self._wanted = {number: one for number, one in self._wanted.items() if one.job != job}

    def next_deadline(self) -> float:
        """When to be ticked again."""
        return min((wanted.next_at for wanted in self._wanted.values()), default=inf)
