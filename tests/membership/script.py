"""Transcripts: a file of commands, each followed by what the machines answered.

A block is a command line, a line of four dashes, and the answer up to an empty line. Lines that begin with #
are for the reader. Two worlds can be scripted:

    machine n00 knows n01 n02   one machine; the script plays the others: `n01: ping 7 to n00`, `tick`,
                                `tick 1.5`, `view`, `why n02`, `leave`, `health`
    cluster 5 local             several machines and a network: `run 10`, `kill n04`, `restart n04`,
                                `restart n04 at 10.9.9.9:7000`, `join n07 via n00`, `leave n03`, `pause n02`,
                                `resume n02`, `twin n04 at 10.9.9.9:7000 via n00`, `partition n00 n01`,
                                `heal`, `view`, `why n00 n04`

Numbers of a machine's own pings are shown as #1, #2, … in the order in which they were drawn, as they begin
at random.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from membership.config import LAN, LOCAL
from membership.effects import (
    Announce,
    ConflictingIdentity,
    Effect,
    Event,
    MemberDied,
    MemberReturned,
    MemberSuspected,
    Persist,
    SeedSilent,
    SelfRefuted,
    Send,
)
from membership.history import WhyEntry
from membership.messages import (
    Ack,
    Conflict,
    Gossip,
    Message,
    Nack,
    Ping,
    PingRequest,
    Rumour,
    SyncRequest,
    SyncState,
)
from membership.swim import Swim
from membership.view import Member, NodeId, Status
from tests.membership.cluster import Cluster, record

DASHES = "----"


def rewrite(text: str) -> str:
    """Run a transcript and return it with the answers as they are now."""
    world: World | None = None
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        comments = [line for line in lines if line.startswith("#")]
        commands = [line for line in lines if not line.startswith("#")]
        if DASHES in commands:
            commands = commands[: commands.index(DASHES)]
        answers: list[str] = []
        for command in commands:
            if command.startswith("machine "):
                world = MachineWorld()
            elif command.startswith("cluster "):
                world = ClusterWorld()
            assert world is not None, "a transcript begins with a machine or a cluster"
            answers += world.do(command)
        out.append("\n".join([*comments, *commands, *([DASHES, *(answers or ["ok"])] if commands else [])]))
    return "\n\n".join(out) + "\n"


def number_of(name: str) -> int:
    return int(name.lstrip("n"))


def shown(rumour: Rumour) -> str:
    by = f" by {'+'.join(rumour.accusers)}" if rumour.accusers else ""
    return f"{rumour.member.status.value} {rumour.member.id}@{rumour.member.incarnation}{by}"


class World:
    """Looks up a command by its first word."""

    def do(self, command: str) -> list[str]:
        word, *rest = command.split()
        if word.endswith(":"):
            return self.hear(word[:-1], command.split(":", 1)[1].strip())
        handler: Callable[..., list[str]] = getattr(self, f"do_{word}")
        return handler(*rest)

    def hear(self, sender: str, said: str) -> list[str]:
        raise AssertionError(f"only a single machine hears {said!r} from {sender}")


class MachineWorld(World):
    """One machine; the script plays all others."""

    swim: Swim

    def do_machine(self, name: str, knows: str = "knows", *others: str) -> list[str]:
        assert knows == "knows"
        self.now = 0.0
        known = [record(number_of(other)) for other in (name, *others)]
        self.swim = Swim(me=known[0], config=LAN, rng=random.Random(1), known=known)
        self.first = self.swim._voice.number
        return self.told(self.swim.start(0.0))

    def do_tick(self, at: str = "") -> list[str]:
        self.now = float(at) if at else self.swim.next_deadline()
        return [f"at {self.now:.2f} s", *self.told(self.swim.tick(self.now))]

    def do_leave(self) -> list[str]:
        return self.told(self.swim.leave(self.now))

    def do_update(self, slots: str) -> list[str]:
        return self.told(self.swim.update_self(self.now, slots=int(slots)))

    def do_view(self) -> list[str]:
        return [f"{m.id} {m.status.value} @{m.incarnation} {m.address}" for m in self.swim.view]

    def do_why(self, name: str) -> list[str]:
        return story(self.swim.why(NodeId(name)))

    def do_health(self) -> list[str]:
        return [f"health {self.swim.health}"]

    def hear(self, sender: str, said: str) -> list[str]:
        return self.told(self.swim.receive(self.parse(sender, said), NodeId(sender), self.now))

    def parse(self, sender: str, said: str) -> Message:
        said, _, news = said.partition(" with ")
        address = record(number_of(sender)).address
        rumours = tuple(self.rumour(part) for part in news.split(", ")) if news else ()
        match said.split():
            case ["ping", number, "to", target]:
                return Ping(
                    number=self.number(number), target=NodeId(target), reply_to=address, rumours=rumours
                )
            case ["ack", number]:
                return Ack(number=self.number(number), rumours=rumours)
            case ["nack", number]:
                return Nack(number=self.number(number))
            case ["ping-request", number, "for", target]:
                return PingRequest(
                    number=self.number(number),
                    target=NodeId(target),
                    target_address=record(number_of(target)).address,
                    reply_to=address,
                    rumours=rumours,
                )
            case ["gossip", *rest]:
                return Gossip(rumours=tuple(self.rumour(part) for part in " ".join(rest).split(", ")))
        raise AssertionError(f"cannot read {said!r}")

    def rumour(self, text: str) -> Rumour:
        status, who, *by = text.split()
        name, _, incarnation = who.partition("@")
        member = record(number_of(name), status=Status(status), incarnation=int(incarnation))
        return Rumour(member=member, accusers=tuple(map(NodeId, by[1].split("+"))) if by else ())

    def number(self, text: str) -> int:
        return self.first + int(text[1:]) if text.startswith("#") else int(text)

    def told(self, effects: list[Effect]) -> list[str]:
        return [self.line(effect) for effect in effects]

    def line(self, effect: Effect) -> str:
        match effect:
            case Persist(incarnation, _):
                return f"persist incarnation {incarnation}"
            case Announce(event):
                return f"announce {described(event)}"
            case Send(address, to, message):
                return f"send to {to or address}: {self.words(message)}"

    def words(self, message: Message) -> str:
        match message:
            case Ping(number=number, target=target, rumours=rumours):
                return f"ping {self.hash(number)} to {target}{self.news(rumours)}"
            case Ack(number=number, rumours=rumours):
                return f"ack {self.hash(number)}{self.news(rumours)}"
            case Nack(number=number):
                return f"nack {self.hash(number)}"
            case PingRequest(number=number, target=target, rumours=rumours):
                return f"ping-request {self.hash(number)} for {target}{self.news(rumours)}"
            case Gossip(rumours=rumours):
                return "gossip " + ", ".join(map(shown, rumours))
            case SyncRequest():
                return "sync-request"
            case SyncState(members=members):
                return "sync-state " + ", ".join(shown(Rumour(member=member)) for member in members)
            case Conflict(session=session, holder=holder):
                return f"conflict: session {session} is refused, {holder.address} holds {holder.id}"

    def news(self, rumours: tuple[Rumour, ...]) -> str:
        return " with " + ", ".join(map(shown, rumours)) if rumours else ""

    def hash(self, number: int) -> str:
        return f"#{number - self.first}" if number > self.first else str(number)


class ClusterWorld(World):
    """Several machines, a network and a clock."""

    cluster: Cluster

    def do_cluster(self, count: str, profile: str = "lan", seed: str = "1") -> list[str]:
        self.cluster = Cluster(int(count), config={"lan": LAN, "local": LOCAL}[profile], seed=int(seed))
        return []

    def do_run(self, seconds: str) -> list[str]:
        begin, first = self.cluster.now, len(self.cluster.events)
        self.cluster.run(float(seconds))
        heard: dict[str, list[float]] = {}
        for at, who, event in self.cluster.events[first:]:
            subject = who if isinstance(event, SelfRefuted | ConflictingIdentity | SeedSilent) else ""
            heard.setdefault(f"{subject} {described(event)}".strip(), []).append(at - begin)
        lines = []
        for what, times in heard.items():
            if len(times) == 1:
                lines.append(f"{what} ({times[0]:.1f} s)")
            else:
                lines.append(f"{what} (at {len(times)} peers, {times[0]:.1f} s to {times[-1]:.1f} s)")
        return lines or ["nothing happens"]

    def do_kill(self, name: str) -> list[str]:
        self.cluster.kill(number_of(name))
        return []

    def do_pause(self, name: str) -> list[str]:
        self.cluster.pause(number_of(name))
        return []

    def do_resume(self, name: str) -> list[str]:
        self.cluster.resume(number_of(name))
        return []

    def do_restart(self, name: str, *rest: str) -> list[str]:
        changes = {"address": rest[1]} if rest else {}
        self.cluster.restart(number_of(name), seeds=[self.seed(name)], **changes)
        return []

    def do_join(self, name: str, via: str, seed: str) -> list[str]:
        assert via == "via"
        self.cluster.add(record(number_of(name)), seeds=[self.cluster.hosts[NodeId(seed)].address])
        return []

    def do_twin(self, name: str, _at: str, address: str, _via: str, seed: str) -> list[str]:
        elder = self.cluster.hosts[NodeId(name)]
        me = replace(elder.swim.me, address=address, incarnation=elder.persisted[0] + 1, session=99)
        self.cluster.add(me, seeds=[self.cluster.hosts[NodeId(seed)].address])
        return []

    def do_leave(self, name: str) -> list[str]:
        host = self.cluster.hosts[NodeId(name)]
        self.cluster.perform(host, host.swim.leave(self.cluster.now))
        return []

    def do_partition(self, *names: str) -> list[str]:
        island = {self.cluster.hosts[NodeId(name)].address for name in names}
        self.cluster.cut = lambda source, to: (source in island) != (to in island)
        return []

    def do_heal(self) -> list[str]:
        self.cluster.cut = lambda _source, _to: False
        return []

    def do_why(self, at: str, about: str) -> list[str]:
        return story(self.cluster[number_of(at)].why(NodeId(about)))

    def do_view(self) -> list[str]:
        views: dict[str, list[str]] = {}
        for swim in self.cluster.alive():
            rows = " ".join(self.cell(member) for member in swim.view)
            views.setdefault(rows, []).append(str(swim.me.id))
        return [f"{' '.join(who)}: {rows}" for rows, who in views.items()]

    def cell(self, member: Member) -> str:
        return f"{member.id}@{member.incarnation}" + (
            "" if member.status is Status.ALIVE else f"({member.status.value})"
        )

    def seed(self, but: str) -> str:
        return next(host.address for name, host in self.cluster.hosts.items() if name != but and host.running)


def described(event: Event) -> str:
    match event:
        case MemberSuspected(member, by) | MemberDied(member, by):
            what = "suspected" if isinstance(event, MemberSuspected) else "dead"
            return f"{member.id}@{member.incarnation} {what} by {'+'.join(by) or 'hearsay'}"
        case MemberReturned(member, was):
            return f"{member.id}@{member.incarnation} returned, was {was.value}"
        case SelfRefuted(incarnation, accusation, by):
            return f"refutes {accusation.value} by {'+'.join(by) or 'hearsay'} as incarnation {incarnation}"
        case ConflictingIdentity(mine, holder):
            return f"at {mine.address} stops: its id belongs to the process at {holder.address}"
        case SeedSilent(address):
            return f"hears nothing from its seed {address}"
    kind = type(event).__name__.removeprefix("Member").lower()
    return f"{event.member.id}@{event.member.incarnation} {kind}"


def story(entries: tuple[WhyEntry, ...]) -> list[str]:
    return [
        f"{entry.at_s:.1f} s {entry.cause.value}{' by ' + '+'.join(entry.by) if entry.by else ''}"
        f" -> {entry.status.value} @{entry.incarnation}"
        for entry in entries
    ] or ["nothing is known"]
