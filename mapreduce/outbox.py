"""What a leadership has to say, collected in order until the shell takes it.

Messages go to workers; events go to whoever follows the job, and the weighty ones into the record's event log
as well, with the next proposal.  The shell performs everything in the order in which it was added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mapreduce.effects import Announce, Happened, LeaderEffect, Send
from mapreduce.messages import ToWorker
from mapreduce.record import MAX_EVENT_CHARS, EventRecord
from mapreduce.telling import plain
from membership.view import NodeId

__all__ = ["Outbox"]


class Outbox:
    """The effects of one leadership.

    Args:
        job: its id.
        wall_offset_s: what to add to `now` for the wall clock that events show.
        note: lets an event wait for the event log.
    """

    def __init__(self, job: str, wall_offset_s: float, note: Callable[[EventRecord], None]) -> None:
        self._job = job
        self._wall_offset_s = wall_offset_s
        self._note = note
        self._effects: list[LeaderEffect] = []

    def add(self, effect: LeaderEffect) -> None:
        """Let the shell do this, after all that was added before."""
        self._effects.append(effect)

    def send(self, to: NodeId, message: ToWorker) -> None:
        """Send a worker a message."""
        self._effects.append(Send(to=to, message=message))

    def send_all(self, letters: Iterable[tuple[NodeId, ToWorker]]) -> None:
        """Send each worker its message."""
        self._effects += [Send(to=to, message=message) for to, message in letters]

    def event(self, kind: str, node: NodeId, text: str, now: float, *, weighty: bool = True) -> None:
        """Announce what has happened; what is weighty is written into the record, too.

        Args:
            kind: one word.
            node: whom it is about.
            text: what happened; what is too long of it is left out.
            now: in seconds.
        """
        shown = plain(text, MAX_EVENT_CHARS)
        event = EventRecord(at_s=now + self._wall_offset_s, kind=kind, node=node, text=shown)
        self._effects.append(Announce(event=Happened(job=self._job, event=event)))
        if weighty:
            self._note(event)

    def take(self) -> list[LeaderEffect]:
        """Give everything to the shell, and start anew."""
        effects, self._effects = self._effects, []
        return effects
