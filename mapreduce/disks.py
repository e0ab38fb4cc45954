"""Peers whose disks fail: they take no copies any more, and the job's user should read why.

A peer tells of its failing disk with its membership; that its places move to others follows from the view
(`mapreduce.placement`).  Here is only what is told of it: when it begins, when it ends, and what the disks
answer where so many fail that a job waits for them.
"""

from __future__ import annotations

from mapreduce.placement import failing_disks
from membership.view import NodeId, View

__all__ = ["Disks"]


class Disks:
    """The disks that failed when the view was last looked at."""

    def __init__(self) -> None:
        self._failing: dict[NodeId, str] = {}

    def look(self, view: View) -> list[tuple[NodeId, str]]:
        """Return what is new: (peer, that its disk takes nothing any more, or does again)."""
        before, self._failing = self._failing, failing_disks(view)
        news = [
            (node, f"takes no copies, its disk fails: {answer}")
            for node, answer in sorted(self._failing.items())
            if node not in before
        ]
        for node in sorted(before.keys() - self._failing.keys()):
            member = view.get(node)
            if member is not None and member.status.in_ring:
                news.append((node, "takes copies again"))
        return news

    def answers(self) -> str:
        """Return what the failing disks answer, in words; "" when none fails."""
        return ", ".join([f"{node}: {answer}" for node, answer in sorted(self._failing.items())])
