"""Who shall hold an output: rows of places, which outputs belong to which row, and how rows are mended.

Theory of operation
-------------------
The outputs of a stage are held by *places*.  A step has up to `ROWS` rows of places; item i (a partition of
a shuffle, or a part) belongs to row i modulo their number.  So what has to be agreed and re-planned stays
small however many tasks there are, and a step's map and reduce stage have the same rows: a part is written
where its partition lies.

A row is drawn on the ring, under the key (job, step, row): its owner and the next R-1 peers, with bounded
loads, in distinct zones where there are any.  When a place dies or drains, the next peer of the row's
preference list takes its turn at the end of the row, and so the survivor that holds everything moves to the
front.  Rows never lose a place that lives: a peer that comes back finds its turn taken, and what it holds
serves as a further copy.

A part belongs to whoever computed it, first of all: its places are its runner and the first of its row that
make R with it (`output_places`).
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.ring import Ring
from membership.view import Member, NodeId, View

__all__ = [
    "DRAINING",
    "FAILING",
    "FULL",
    "ROWS",
    "Rows",
    "can_hold",
    "can_work",
    "draw_rows",
    "failing_disks",
    "holders_ring",
    "mend_rows",
    "output_places",
]

ROWS = 256
# Flags in a member's meta, which membership gossips.
DRAINING = "draining"
FULL = "full"
FAILING = "failing"  # its value says what the disk answers

Row = tuple[NodeId, ...]


def can_hold(member: Member) -> bool:
    """Whether a member takes copies: it is here, stays, can write, and has a share of the ring."""
    flags = {name for name, _ in member.meta}
    return member.status.in_ring and member.weight > 0 and flags.isdisjoint((DRAINING, FULL, FAILING))


def can_work(member: Member) -> bool:
    """Whether a member takes tasks."""
    return member.status.in_ring and all(name != DRAINING for name, _ in member.meta)


def failing_disks(view: View) -> dict[NodeId, str]:
    """Return the members whose disks take nothing, and what each of those disks answers."""
    return {
        member.id: value for member in view.ring_members for name, value in member.meta if name == FAILING
    }


def holders_ring(view: View) -> Ring:
    """Return the ring of those who take copies."""
    return Ring.of(member for member in view if can_hold(member))


@dataclass(frozen=True, slots=True)
class Rows:
    """A stage's rows of places."""

    rows: tuple[Row, ...]

    def of(self, item: int) -> Row:
        """The places of a partition or a part, the preferred one first."""
        return self.rows[item % len(self.rows)] if self.rows else ()

    def duty(self, node: NodeId, items: int) -> tuple[int, ...]:
        """Which of so many partitions a node is a place of, ascending."""
        mine = {number for number, row in enumerate(self.rows) if node in row}
        return tuple([item for item in range(items) if item % len(self.rows) in mine]) if mine else ()

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Everybody who is a place, in the order of the rows."""
        return tuple(dict.fromkeys(node for row in self.rows for node in row))


def draw_rows(job: str, step: int, items: int, replicas: int, ring: Ring) -> Rows:
    """Return fresh rows; all of them empty where nobody takes copies.

    Args:
        items: how many partitions or parts there are.
        replicas: R; fewer peers make shorter rows.
    """
    count = min(items, ROWS)
    if not len(ring):
        return Rows(((),) * count)
    keys = [_key(job, step, row) for row in range(count)]
    owners = ring.assign(keys, replicas=replicas).owners
    return Rows(tuple([tuple(owners[key]) for key in keys]))


def mend_rows(
    job: str, step: int, rows: Rows, replicas: int, ring: Ring, present: frozenset[NodeId]
) -> tuple[Rows, tuple[tuple[int, Row], ...]]:
    """Replace places that are gone, and fill rows that are too short.

    Args:
        ring: of those who take copies.
        present: who is here at all: one that takes no further copies keeps what it has until there is
            another in its turn.

    Returns:
        The rows, and (number, row) of those that changed.
    """
    mended: list[Row] = []
    changed: list[tuple[int, Row]] = []
    for number, row in enumerate(rows.rows):
        staying = tuple([node for node in row if node in ring])
        if len(staying) < min(replicas, len(ring)):
            staying += _next(job, step, number, staying, replicas, ring)
        # Nobody in its turn: a peer that is full or about to leave is better than none.
        new = staying or tuple([node for node in row if node in present])
        if new != row:
            changed.append((number, new))
        mended.append(new)
    return (Rows(tuple(mended)) if changed else rows), tuple(changed)


def output_places(row: Row, runner: NodeId, replicas: int, *, runner_holds: bool) -> Row:
    """Return the places of a part: whoever computed it, and the first others of its row.

    Args:
        runner_holds: False for a runner that is about to leave or has no room.
    """
    if not runner_holds:
        return row
    return (runner, *[node for node in row if node != runner][: replicas - 1])


def _next(job: str, step: int, number: int, taken: Row, replicas: int, ring: Ring) -> Row:
    """The next peers of a row's preference list that are not in it."""
    preferred = ring.owners(_key(job, step, number), replicas + len(taken))
    return tuple([node for node in preferred if node not in taken][: replicas - len(taken)])


def _key(job: str, step: int, row: int) -> str:
    return f"{job}/{step}/{row}"
