"""Which failpoints meet which actions, and what is to be known of the moments: the table of `failpoints`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mapreduce.failpoints import FAILPOINTS

__all__ = ["ACTIONS", "AFTER_A_LOSS", "IN_CHILDREN", "OFTEN", "ON_DISK", "combinations"]

EVERYWHERE: Final = ("kill", "stop", "cut")
ACTIONS: Final = (*EVERYWHERE, "eio", "slow")

# Moments that come only when a peer was lost in the midst of a job.
AFTER_A_LOSS: Final = frozenset(
    name for name in FAILPOINTS if name.partition(".")[0] in ("takeover", "seal", "copy")
)
# Moments in a child, which has no network of its own to be cut off from.
IN_CHILDREN: Final = frozenset(name for name in FAILPOINTS if name.startswith("attempt."))
# Moments that come many times in a job, so that a later time may be chosen.
OFTEN: Final = frozenset(
    (
        *("task.begin", "task.done", "push.begin", "push.chunk", "push.take", "push.acked", "store.write"),
        *("store.rename", "store.renamed", "store.adopt", "store.adopted", "finished.send", "finished.heard"),
        *("commit.accept", "attempt.map"),
        *("vote.save", "vote.sync", "vote.rename", "vote.renamed", "vote.saved"),
    )
)

# Where the disk may fail or be slow.
ON_DISK: Final = ("vote.save", "vote.sync", "vote.rename", "store.write", "store.rename", "store.adopt")


def combinations(names: Sequence[str] = (), actions: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return the (name, action) of all rounds, in the order of the table.

    Args:
        names: names, or beginnings of them; none: all.
        actions: of `ACTIONS`; none: all.

    Raises:
        ValueError: a name or an action that does not exist.
    """
    for name in names:
        if not any(known.startswith(name) for known in FAILPOINTS):
            raise ValueError(f"there is no failpoint {name!r}; there are {', '.join(FAILPOINTS)}")
    for action in actions:
        if action not in ACTIONS:
            raise ValueError(f"there is no action {action!r}; there are {', '.join(ACTIONS)}")
    return [
        (name, action)
        for name in FAILPOINTS
        for action in (ACTIONS if name in ON_DISK else EVERYWHERE)
        if (not names or name.startswith(tuple(names))) and (not actions or action in actions)
        if not (action == "cut" and name in IN_CHILDREN)
    ]
