"""The blocks of the ring's files on one peer: where they lie, which copies to make, what to drop.

Theory
------
Peers tell each other what they hold (`holdings`): what has changed at once, and all of it when a short
comparison shows a difference.  `p2p.replication` says which copies must move, whenever the view or the blocks
somewhere have changed.  Copies go out a few at a time, checked before they leave (a copy of a damaged block
would get a fresh digest and pass for sound), and throttled with all other repairs.

Blocks of a file without a name stay as long as news of it comes: any block that arrives anywhere keeps those
that came before.  Should a put stand still for longer, or a holder leave, the name is refused until the
blocks that nobody holds have been sent again.

Blocks arrive by puts (`p2p.block_puts`) and as copies; damaged ones are found by reading and by scrubbing
(`p2p.scrubbing`).

⚙ Reads and writes segments, through the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import TYPE_CHECKING

from mapreduce.placement import DRAINING, holders_ring
from membership.ring import Ring
from membership.view import NodeId
from p2p import file_questions as f
from p2p.block_puts import BlockPuts
from p2p.blocks import RingPath, attempt_of, block_of, is_file_id, places
from p2p.bulk import BulkEvent, Sent
from p2p.catalogue import Catalogue, Entry
from p2p.replication import (
    SURPLUS_S,
    UNNAMED_S,
    Copy,
    Holdings,
    Surplus,
    due_copies,
    state_of,
)
from p2p.ring_questions import AskScrub, ScrubIs
from p2p.scrubbing import Scrubber
from p2p.segments import FILE_STAGE

if TYPE_CHECKING:
    from mapreduce.spec import JobPlan
    from p2p.job_service import JobService

__all__ = ["BlockKeeper"]

LOOK_EVERY_S = 5.0
LOOK_PAUSE_S = 0.2
COMPARE_EVERY_S = 5.0
MAX_COPYING = 4
FAILED_PAUSE_S = 2.0
QUIET_S = 0.5
MAX_PLACES = 64
NO_NAME_ANY_MORE_S = 60.0
IN_USE_S = 120.0
MAX_ROW_BYTES = 256 << 10


class BlockKeeper:
    """What this peer does about blocks; `desk` is the service that it is a part of.

    Args:
        catalogue: the names, which are only read.
    """

    def __init__(self, desk: JobService, catalogue: Catalogue, now: float) -> None:
        self._desk = desk
        self._catalogue = catalogue
        self.puts = BlockPuts(desk, self)
        self.holdings = Holdings()
        self.mine: dict[str, int] = {}
        self.copies_made = 0
        self._not_before = -inf
        self._ring = Ring()
        self._ring_version = -1
        self._places: dict[tuple[str, int, int], list[tuple[NodeId, ...]]] = {}
        self._copying: set[tuple[str, int, NodeId]] = set()
        self._work: Iterator[Copy | Surplus | None] | None = None
        self._is_stale = True
        self._view_version = -1
        self._look_at = now
        self._compare_at = now
        self._surplus: dict[tuple[str, int], float] = {}
        self._surplus_seen: set[tuple[str, int]] = set()
        self._unnamed: dict[str, float] = {}
        self._was_named: set[str] = set()
        self._used_at: dict[str, float] = {}
        # The files that a job reads, {job: ...}: its plan does not change.
        self._read_by: dict[str, frozenset[str]] = {}
        self._has_work_left = False
        self._quiet_since = inf
        self._scrubber = Scrubber(desk, now)

    # -- where blocks belong ---------------------------------------------------------------------------

    @property
    def ring(self) -> Ring:
        """The ring of those who take copies."""
        if self._ring_version != self._desk.swim.version:
            self._ring_version = self._desk.swim.version
            self._ring = holders_ring(self._desk.swim.view)
            self._places.clear()
        return self._ring

    def places(self, file: str, blocks: int, copies: int) -> list[tuple[NodeId, ...]]:
        """Return who shall hold each block of a file; remembered, as it is asked for block by block."""
        ring, key = self.ring, (file, blocks, copies)
        if key not in self._places:
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            self._places[key] = places(file, blocks, copies, ring)
        return self._places[key]

    def scrubbed(self, question: AskScrub, now: float) -> ScrubIs:
        """Tell how far scrubbing is; it begins anew if that is asked for."""
        scrubber = self._scrubber
        if question.begins:
            scrubber.begin(now)
        return ScrubIs(
            number=question.number,
            checked=scrubber.checked,
            damaged=scrubber.damaged,
            waiting=scrubber.waiting,
        )

    # -- who holds what --------------------------------------------------------------------------------

    def on_holds(self, message: f.HoldsBlocks, sender: NodeId, now: float) -> None:
        """A peer says what lies with it."""
        rows = [(row.file, int.from_bytes(row.blocks, "little")) for row in message.rows]
        for file, bits in rows:
            if bits & ~self.holdings.bits(sender, file):
                self.put_goes_on(file, now)
        if self.holdings.set(sender, rows, is_all=message.is_all):
            self._is_stale = True

    def on_compare(self, message: f.CompareBlocks, sender: NodeId) -> None:
        """A peer says how much it has, in short."""
        if self.holdings.state(sender) != message.state:
            self._desk.say(sender, f.AskBlocks())

    def tell_all(self, to: NodeId) -> None:
        """Tell a peer of every block that lies here."""
        for is_first, rows in _in_frames(self.mine):
            self._desk.say(to, f.HoldsBlocks(rows=rows, is_all=is_first))

    def peer_is_gone(self, node: NodeId) -> None:
        """It took its copies along."""
        self.holdings.forget(node)
        self._is_stale = True

    def names_changed(self) -> None:
        """The catalogue has news."""
        self._is_stale = True
        self._was_named.update(file for file in self.mine if self._catalogue.of_file(file) is not None)

    def put_goes_on(self, file: str, now: float) -> None:
        """There is news of a put: what lies here of its file has yet to wait for its name."""
        if file in self._unnamed:
            self._unnamed[file] = now

    def lacking(self, entry: Entry) -> int:
        """The blocks that nobody who stays is known to hold, as bits."""
        held = 0
        for member in self._desk.swim.view.ring_members:
            if all(name != DRAINING for name, _ in member.meta):
                held |= self.holdings.bits(member.id, entry.file)
        return ((1 << entry.blocks) - 1) & ~held

    def use(self, file: str, now: float) -> None:
        """A task of this peer reads the file: its blocks stay here for a while."""
        self._used_at[file] = now

    def holders(self, file: str, block: int) -> list[NodeId]:
        """The peers that hold a block as far as is known, this one first if it does."""
        here = [member.id for member in self._desk.swim.view.ring_members]
        found = self.holdings.of(file, block, here)
        return sorted(found, key=lambda node: node != self._desk.me)

    def holds(self, file: str, block: int) -> bool:
        """Tell whether a block lies here."""
        return self._desk.store.holds(file, FILE_STAGE, attempt_of(block))

    def take_stock(self, now: float) -> None:
        """See what has come and gone in the store, and tell everybody."""
        touched = [job for job in self._desk.store.touched if is_file_id(job)]
        self._desk.store.touched.clear()
        changed: dict[str, int] = {}
        for file in sorted(touched):
            bits = 0
            for stage, covers in self._desk.store.held(file):
                if stage == FILE_STAGE:
                    for attempt in covers.attempts:
                        bits |= 1 << block_of(attempt)
            if bits:
                self._unnamed[file] = now
            if bits != self.mine.get(file, 0):
                changed[file] = bits
                if bits:
                    self.mine[file] = bits
                else:
                    del self.mine[file]
                    self._unnamed.pop(file, None)
                    self._was_named.discard(file)
        if not changed:
            return
        self._is_stale = True
        self.holdings.set(self._desk.me, changed.items(), is_all=False)
        for _, rows in _in_frames(changed):
            for member in self._desk.swim.view.ring_members:
                if member.id != self._desk.me:
                    self._desk.say(member.id, f.HoldsBlocks(rows=rows, is_all=False))

    # -- copies ----------------------------------------------------------------------------------------

    def on_sent(self, file: str, block: int, node: NodeId, event: BulkEvent, now: float) -> None:
        """A copy has arrived, or has not."""
        self._copying.discard((file, block, node))
        if isinstance(event, Sent):
            self.holdings.add(node, file, block)
            self.copies_made += 1
        else:
            # The peer may be full, and say so soon; to try again at once would cost a reading each time.
            self._not_before = now + FAILED_PAUSE_S
        self._is_stale = True
        self.puts.no_more_awaited(file, block, node)

    def send(self, file: str, block: int, to: NodeId, now: float, *, is_repair: bool) -> None:
        """Bring a copy of our block to a peer, unless one is on its way; `on_sent` hears the end of it."""
        sources = self._desk.store.sources(file, FILE_STAGE, (attempt_of(block),), ())
        if not sources or (file, block, to) in self._copying:
            return
        self._copying.add((file, block, to))
        self._desk.send_copy(file, FILE_STAGE, sources, to, ("block", file, block, to), now, is_repair)

    def _look(self, now: float) -> None:
        """Go on with a slice of what has to be copied or dropped."""
        if self._work is None:
            if now < self._not_before or (not self._is_stale and now < self._look_at):
                return
            self._begin_looking(now)
        assert self._work is not None
        while len(self._copying) < MAX_COPYING:
            step = next(self._work, False)
            match step:
                case None:
                    return
                case Copy(file=file, block=block, to=to):
                    self._has_work_left = True
                    self.send(file, block, to, now, is_repair=True)
                case Surplus(file=file, block=block):
                    self._surplus_seen.add((file, block))
                case _:
                    self._end_looking(now)
                    return

    def _begin_looking(self, now: float) -> None:
        self._is_stale = False
        self._has_work_left = False
        self._look_at = now + LOOK_EVERY_S
        self._surplus_seen = set()
        view = self._desk.swim.view
        ours = self._desk.swim.me.meta
        is_leaving = any(name == DRAINING for name, _ in ours)
        staying = [
            member.id for member in view.ring_members if all(name != DRAINING for name, _ in member.meta)
        ]
        entries = [entry for file in sorted(self.mine) if (entry := self._catalogue.of_file(file))]
        self._work = due_copies(
            self._desk.me,
            dict(self.mine),
            entries,
            self.holdings,
            self.ring,
            staying,
            is_leaving=is_leaving,
        )

    def _end_looking(self, now: float) -> None:
        self._work = None
        self._surplus = {key: self._surplus.get(key, now) for key in sorted(self._surplus_seen)}
        for (file, block), since in list(self._surplus.items()):
            if now - since >= SURPLUS_S and now - self._used_at.get(file, -inf) >= IN_USE_S:
                del self._surplus[file, block]
                self._drop_block(file, block)
        self._drop_unnamed(now)

    def _drop_block(self, file: str, block: int) -> None:
        while (located := self._desk.store.find(file, FILE_STAGE, attempt_of(block))) is not None:
            self._desk.store.remove_segment(located.path, is_damaged=False)

    def _drop_unnamed(self, now: float) -> None:
        for file, since in list(self._unnamed.items()):
            if self._catalogue.of_file(file) is not None:
                self._unnamed[file] = now
                self._was_named.add(file)
                continue
            limit_s = NO_NAME_ANY_MORE_S if file in self._was_named else UNNAMED_S
            is_due = now - max(since, self._used_at.get(file, -inf)) >= limit_s
            if is_due and not self._is_read(file):
                self._desk.store.drop_job(file)
        self._used_at = {file: at for file, at in self._used_at.items() if now - at < IN_USE_S}

    def _is_read(self, file: str) -> bool:
        """Whether a job that goes on reads it: its later tasks need it, though it has no name any more."""
        going_on = [job for job in self._desk.heard if self._desk.worker.fate_of(job) is None]
        read_by: dict[str, frozenset[str]] = {}
        for job in going_on:
            plan = self._desk.plan(job)
            if plan is not None:
                read_by[job] = self._read_by[job] if job in self._read_by else _files_of(plan)
        self._read_by = read_by
        return any(file in files for files in read_by.values())

    def has_handed_over(self, now: float) -> bool:
        """Whether nothing is left to be copied, when this peer is about to leave.

        What is said of ourselves takes a moment to spread, and others may leave at the same time: so a peer
        with blocks looks again for a while before it believes that all is done.
        """
        if not self.mine:
            return True
        if self._is_stale or self._work is not None or self._has_work_left or self._copying:
            self._quiet_since = inf
            return False
        self._quiet_since = min(self._quiet_since, now)
        return now - self._quiet_since >= QUIET_S

    # -- time ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._view_version != self._desk.swim.version:
            self._view_version = self._desk.swim.version
            self._is_stale = True
        if self._desk.store.touched:
            self.take_stock(now)
        self._look(now)
        if now >= self._compare_at:
            self._compare_at = now + COMPARE_EVERY_S
            self._keep_house(now)
        self._scrubber.tick(now)

    def _keep_house(self, now: float) -> None:
        message = f.CompareBlocks(state=state_of(self.mine))
        moving = self.puts.moving()
        for file in moving:
            self.put_goes_on(file, now)
        for member in self._desk.swim.view.ring_members:
            if member.id != self._desk.me:
                self._desk.say(member.id, message)
                if moving:
                    self._desk.say(member.id, f.PutsGoOn(files=moving))
        store = self._desk.store
        if store.unremoved:
            self._desk.log(f"a segment cannot be removed: {store.unremoved}")
            store.unremoved = ""
        self.puts.drop_idle(now)

    def next_deadline(self, now: float) -> float:
        """When to be ticked again."""
        if self._desk.store.touched or self._work is not None or self._is_stale:
            return now + LOOK_PAUSE_S
        return min(self._look_at, self._compare_at, self._scrubber.due_at)

    def close(self) -> None:
        """Remove what has come half."""
        self.puts.close()


def _files_of(plan: JobPlan) -> frozenset[str]:
    paths = {split.path for step in plan.steps for split in step.splits}
    return frozenset(found.file for path in paths if (found := RingPath.parse(path)) is not None)


def _in_frames(held: dict[str, int]) -> Iterable[tuple[bool, tuple[f.HeldFile, ...]]]:
    """Cut what is held into messages, the first of which is marked; one at least."""
    rows: list[f.HeldFile] = []
    size, is_first = 0, True
    for file, bits in held.items():
        packed = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
        rows.append(f.HeldFile(file=file, blocks=packed))
        size += len(packed) + 48
        if size >= MAX_ROW_BYTES or len(rows) >= f.FILES_AT_A_TIME:
            yield is_first, tuple(rows)
            rows, size, is_first = [], 0, False
    if rows or is_first:
        yield is_first, tuple(rows)
