"""The ring's own files on one peer: names and blocks, for clients and among peers.

Names are agreed on as `p2p.catalogue` explains, by `p2p.naming`; blocks are `p2p.block_keeper`'s.  This
module joins the two, answers questions, and keeps catalogues alike: every peer compares its own with one
other peer's every `COMPARE_EVERY_S`, and with a newcomer's at once.  It also says in this peer's meta, which
membership gossips, that its disk is full (`placement.FULL`) or takes nothing (`placement.FAILING`): then
nobody chooses it for copies until there is room again, or a probe of the disk goes well.

⚙ Reads and writes entries on disk.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never

from mapreduce.placement import DRAINING, FAILING, FULL
from membership.view import NodeId
from p2p import file_questions as f
from p2p.block_keeper import BlockKeeper
from p2p.catalogue import Catalogue, Entry, is_forgotten, why_no_name
from p2p.name_files import NameFiles
from p2p.naming import Named, Namings, Step, Told
from p2p.ring_questions import AskScrub

if TYPE_CHECKING:
    from p2p.job_service import JobService
    from p2p.service import Origin
    from p2p.transport import Connection

__all__ = ["RingFiles"]

COMPARE_EVERY_S = 5.0
MARKS_EVERY_S = 1.0
PROBE_DISK_EVERY_S = 30.0
ENTRIES_PER_ANSWER = 64

_FROM_CLIENTS = (
    f.BeginPut,
    f.AskPlaces,
    f.PutBlock,
    f.NameFile,
    f.AskFiles,
    f.AskFile,
    f.AskHolders,
    AskScrub,
)
_AMONG_PEERS = (
    f.ClaimName,
    f.NameClaimed,
    f.UnclaimName,
    f.KeepName,
    f.NameKept,
    f.CompareNames,
    f.NamesHere,
    f.AskNames,
    f.HoldsBlocks,
    f.CompareBlocks,
    f.AskBlocks,
    f.PutsGoOn,
)


class RingFiles:
    """Files, as far as this peer is concerned; `desk` is the service that it is a part of.

    Args:
        names: entries on disk; None: they are kept in memory only.
        rng: the only source of randomness.
        wall_offset_s: what makes wall-clock seconds of `now`.
    """

    handles = frozenset((*_FROM_CLIENTS, *_AMONG_PEERS))

    def __init__(
        self,
        desk: JobService,
        names: NameFiles | None,
        rng: random.Random,
        *,
        now: float,
        wall_offset_s: float,
    ) -> None:
        self._desk = desk
        self._names = names
        self._rng = rng
        self._wall_offset_s = wall_offset_s
        self.catalogue = Catalogue(names.load() if names is not None else ())
        self.blocks = BlockKeeper(desk, self.catalogue, now)
        self._namings = Namings(rng, desk.fresh_number)
        self._compare_at = now
        self._known_peers: frozenset[NodeId] = frozenset()
        self._marks_at = now
        self._probe_disk_at = now
        self._is_draining = False

    # -- messages --------------------------------------------------------------------------------------

    def receive(self, message: Any, origin: Origin, now: float) -> None:
        """Take a message of a type in `handles`."""
        if isinstance(message, _FROM_CLIENTS):
            if origin.connection is not None:
                self._on_client(message, origin.connection, now)
        else:
            self.on_peer(message, origin.node, now)

    def _on_client(self, question: Any, connection: Connection, now: float) -> None:
        number = question.number
        match question:
            case f.BeginPut():
                self._desk.answer(connection, self._begun(question))
            case f.AskPlaces(file=file, first=first):
                rows = self.blocks.places(file, question.blocks, question.replicas)
                rows = rows[first : first + f.PLACES_AT_A_TIME]
                found = tuple([self._addresses(row) for row in rows])
                self._desk.answer(connection, f.PlacesAre(number=number, first=first, rows=found))
            case f.PutBlock():
                self.blocks.puts.on_put(question, connection, now)
            case f.NameFile():
                self._name(question, connection, now)
            case f.AskFiles():
                self._desk.answer(connection, self._list(question))
            case f.AskFile(name=name):
                entry = self.catalogue.get(name)
                near = self.catalogue.near(name) if entry is None else ""
                self._desk.answer(connection, f.FileIs(number=number, entry=entry, near=near))
            case f.AskHolders(file=file, first=first):
                last = min(question.blocks, first + f.PLACES_AT_A_TIME)
                held = [self._addresses(self.blocks.holders(file, block)) for block in range(first, last)]
                self._desk.answer(connection, f.HoldersAre(number=number, first=first, rows=tuple(held)))
            case AskScrub():
                self._desk.answer(connection, self.blocks.scrubbed(question, now))

    def on_peer(self, message: Any, sender: NodeId, now: float) -> None:
        """Take what a peer says, or this one to itself."""
        match message:
            case f.ClaimName(number=number, name=name, put=put, replaces=replaces):
                self.blocks.put_goes_on(put, now)
                reason, version = self.catalogue.claim(name, put, now, replaces=replaces)
                self._desk.say(sender, f.NameClaimed(number=number, version=version, reason=reason))
            case f.NameClaimed():
                self._perform(self._namings.on_claimed(message, sender, now))
            case f.UnclaimName(name=name, put=put):
                self.catalogue.unclaim(name, put)
            case f.KeepName(number=number, entry=entry):
                reason = self._keep(entry, now)
                if number >= 0:
                    self._desk.say(sender, f.NameKept(number=number, reason=reason))
            case f.NameKept():
                self._perform(self._namings.on_kept(message, sender, now))
            case f.CompareNames(state=state):
                if state != self.catalogue.state:
                    self._tell_names("", sender)
            case f.NamesHere():
                better, wanted = self.catalogue.compare(message.rows, message.after, message.last)
                for entry in better[: f.NAMES_AT_A_TIME]:
                    self._desk.say(sender, f.KeepName(number=-1, entry=entry))
                if wanted or message.last:
                    names = tuple(wanted[: f.NAMES_AT_A_TIME])
                    self._desk.say(sender, f.AskNames(names=names, more_after=message.last))
            case f.AskNames(names=names, more_after=more_after):
                for name in names:
                    known = self.catalogue.known(name)
                    if known is not None:
                        self._desk.say(sender, f.KeepName(number=-1, entry=known))
                if more_after:
                    self._tell_names(more_after, sender)
            case f.HoldsBlocks():
                self.blocks.on_holds(message, sender, now)
            case f.CompareBlocks():
                self.blocks.on_compare(message, sender)
            case f.AskBlocks():
                self.blocks.tell_all(sender)
            case f.PutsGoOn(files=files):
                for file in files:
                    self.blocks.put_goes_on(file, now)

    def peer_is_gone(self, node: NodeId, now: float) -> None:
        """A peer has died or left."""
        self.blocks.peer_is_gone(node)
        self._perform(self._namings.peer_is_gone(node, now))

    # -- names -----------------------------------------------------------------------------------------

    def _begun(self, question: f.BeginPut) -> f.PutBegun:
        number, name = question.number, question.name
        reason = why_no_name(name)
        if reason:
            return f.PutBegun(number=number, reason="name", text=f"{name!r} is no name for a file: {reason}")
        if self.catalogue.get(name) is not None and not question.replaces:
            text = f"{name} exists already: choose another name, or replace it with --force"
            return f.PutBegun(number=number, reason="exists", text=text)
        if not len(self.blocks.ring):
            text = "no peer takes copies: every disk is nearly full or fails"
            return f.PutBegun(number=number, reason="full", text=text)
        return f.PutBegun(number=number)

    def _name(self, question: f.NameFile, connection: Connection, now: float) -> None:
        entry = question.entry
        reason = why_no_name(entry.name)
        if reason:
            text = f"{entry.name!r} is no name for a file: {reason}"
            self._desk.answer(connection, f.FileNamed(number=question.number, reason="name", text=text))
            return
        known = self.catalogue.known(entry.name)
        is_said_again = known is not None and known.file == entry.file
        if entry.is_removal and not is_said_again and self.catalogue.get(entry.name) is None:
            near = self.catalogue.near(entry.name)
            text = f"no file {entry.name} is on the ring" + (f"; did you mean {near}?" if near else "")
            self._desk.answer(connection, f.FileNamed(number=question.number, reason="unknown", text=text))
            return
        if lacking := self.blocks.lacking(entry):
            text = f"{entry.name}: nobody holds {lacking.bit_count()} of its {entry.blocks} blocks any more"
            packed = lacking.to_bytes((entry.blocks + 7) // 8, "little")
            answer = f.FileNamed(number=question.number, reason="lacking", text=text, lacking=packed)
            self._desk.answer(connection, answer)
            return
        # Times are ours to set: the client's clock may be anything.
        wall_s = now + self._wall_offset_s
        lasts_s = entry.expires_at_s - entry.made_at_s
        entry = replace(entry, made_at_s=wall_s, expires_at_s=wall_s + lasts_s if entry.expires_at_s else 0.0)
        peers = [member.id for member in self._desk.swim.view.ring_members]
        client = (connection, question.number)
        self._perform(self._namings.begin(entry, question.replaces, client, peers, now))

    def _keep(self, entry: Entry, now: float) -> str:
        """Write an entry down; "" or why that fails."""
        wall_s = now + self._wall_offset_s
        if is_forgotten(entry, wall_s):
            return ""
        self.catalogue.unclaim(entry.name, entry.file)
        known = self.catalogue.known(entry.name)
        if known is not None and known.file == entry.file and known.version >= entry.version:
            return ""
        if known is not None and (known.version, known.file) > (entry.version, entry.file):
            return "a later one is known"
        try:
            if self._names is not None:
                self._names.save(entry)
        except OSError as error:
            return f"{error.strerror or error}"
        self.catalogue.learn(entry, wall_s)
        self.blocks.names_changed()
        return ""

    def _tell_names(self, after: str, to: NodeId) -> None:
        rows = self.catalogue.rows(after, f.NAMES_AT_A_TIME)
        last = rows[-1].name if len(rows) == f.NAMES_AT_A_TIME else ""
        self._desk.say(to, f.NamesHere(rows=tuple(rows), after=after, last=last))

    def _list(self, question: f.AskFiles) -> f.FilesAre:
        here = [member.id for member in self._desk.swim.view.ring_members]
        rows: list[f.FileRow] = []
        for entry in self.catalogue.entries(question.prefix, question.after):
            if len(rows) == f.FILES_AT_A_TIME:
                return f.FilesAre(number=question.number, rows=tuple(rows), more=True)
            rows.append(
                f.FileRow(
                    name=entry.name,
                    file=entry.file,
                    size_bytes=entry.size_bytes,
                    blocks=entry.blocks,
                    replicas=entry.replicas,
                    copies=self.blocks.holdings.copies(entry, here),
                    made_at_s=entry.made_at_s,
                    expires_at_s=entry.expires_at_s,
                )
            )
        return f.FilesAre(number=question.number, rows=tuple(rows), more=False)

    def _perform(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Told(to=to, message=message):
                    self._desk.say(to, message)
                case Named(client=(connection, number), reason=reason, text=text):
                    self._desk.answer(connection, f.FileNamed(number=number, reason=reason, text=text))
                case _:
                    assert_never(step)

    def _addresses(self, nodes: Iterable[NodeId]) -> f.PlaceRow:
        members = [self._desk.swim.get(node) for node in nodes]
        return f.PlaceRow(addresses=tuple([member.address for member in members if member is not None]))

    # -- time ------------------------------------------------------------------------------------------

    def drain(self, now: float) -> None:
        """This peer is about to leave: say so, and hand on what lies here."""
        self._is_draining = True
        self._say_marks(now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        here = [member.id for member in self._desk.swim.view.ring_members]
        if self._namings.next_deadline() <= now:
            self._perform(self._namings.tick(here, now))
        newcomers = frozenset(here) - self._known_peers
        self._known_peers = frozenset(here)
        if now >= self._compare_at:
            self._compare_at = now + COMPARE_EVERY_S
            newcomers |= {self._rng.choice(here)} if here else set()
            self._forget_old(now)
        for node in sorted(newcomers):
            if node != self._desk.me:
                self._desk.say(node, f.CompareNames(state=self.catalogue.state))
        if now >= self._marks_at:
            self._say_marks(now)
        self.blocks.tick(now)

    def _forget_old(self, now: float) -> None:
        self.catalogue.drop_claims(now)
        for entry in self.catalogue.expire(now + self._wall_offset_s):
            try:
                if self._names is not None:
                    self._names.remove(entry.name)
            except OSError as error:  # after a restart it is here again, and over
                self._desk.log(f"the entry of {entry.name} cannot be removed: {error.strerror or error}")
            self.blocks.names_changed()

    def _say_marks(self, now: float) -> None:
        """Have membership tell everybody whether this peer takes copies."""
        self._marks_at = now + MARKS_EVERY_S
        ours = (FULL, FAILING, DRAINING)
        marks = {name: value for name, value in self._desk.swim.me.meta if name not in ours}
        if self._desk.store.is_full():
            marks[FULL] = "1"
        if failing := self._failing(now):
            marks[FAILING] = failing
        if self._is_draining:
            marks[DRAINING] = "1"
        meta = tuple(sorted(marks.items()))
        if meta != self._desk.swim.me.meta and not self._desk.swim.stopped:
            self._desk.say_of_ourselves(meta, now)

    def _failing(self, now: float) -> str:
        """What a failing disk answers, "" of a sound one; a failing one is probed now and then."""
        store = self._desk.store
        if not store.failing:
            self._probe_disk_at = now + PROBE_DISK_EVERY_S
        elif now >= self._probe_disk_at:
            self._probe_disk_at = now + PROBE_DISK_EVERY_S
            store.probe()
        return store.failing

    def next_deadline(self, now: float) -> float:
        """When to be ticked again."""
        return min(
            self._namings.next_deadline(),
            self._compare_at,
            self._marks_at,
            self.blocks.next_deadline(now),
        )
