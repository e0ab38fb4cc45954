"""SWIM with Lifeguard, as one pure machine: messages and time go in, effects come out.

Theory of operation
-------------------
Every period a peer probes one other member (`probe`, `roster`); who does not answer, directly or through
others, is suspected; a suspect that does not object in time is dead (`suspicion`). An accused peer objects by
raising its incarnation, which nobody else may do (`view.supersedes`). News ride on every message and go out
between probes (`gossip`); now and then two peers compare everything (`sync`). A peer that notices that it is
slow itself believes its own accusations less (`awareness`).

This module decides when what is done, and who is answered; it holds the clock's side of everything. What is
believed, and what follows from news, is `beliefs`; what is said, `voice`; who we are ourselves, `identity`.

    messages ─► receive ─┐                 ┌─► of others: beliefs ─► Announce, the view
                         ├─► _on_… ─► _hear┤
    time ─────► tick ────┘                 └─► of ourselves: identity ─► Persist, Announce
                  └─► probe, relays, door, gossip, sync, knocking ─► voice ─► Send

*Time.* The machine keeps one deadline for each of its concerns; `next_deadline` is their minimum, computed
once at the end of each call. Nothing is due while there is nothing to do: an idle peer wakes once a period to
probe.

*Sleep.* If a call comes much later than the deadline, we were asleep (stopped, starved, suspended), and the
answers that we missed may still lie unread in the inbox. Then whoever is waited for gets that much more time,
and our health is worse. So a peer that was stopped for ten seconds accuses nobody when it goes on.

*Identity.* See `door`. *Islands.* Silent seeds and dead members are knocked at for ever, one of each a
`reconnect_period_s`; when one answers, the exchange of states tells both sides whom the other holds for dead,
and these object.

Sources: A. Das, I. Gupta, A. Motivala, "SWIM" (DSN 2002); A. Dadgar, J. Phillips, J. Currey, "Lifeguard:
Local Health Awareness for More Accurate Failure Detection" (2017); behaviour of hashicorp/memberlist where
the papers are silent.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import assert_never

from membership.awareness import Awareness
from membership.beliefs import Beliefs
from membership.config import SwimConfig
from membership.detours import Detours
from membership.effects import Announce, Effect, Persist, SeedSilent, Send
from membership.errors import InvalidMember, SwimStopped
from membership.history import WhyEntry
from membership.identity import Identity
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
from membership.probe import Probe, Relay, Relays
from membership.seeds import Seed, Seeds
from membership.sync import better_than, sync_period_s
from membership.table import MemberTable
from membership.view import Member, NodeId, Status, View, supersedes
from membership.voice import Voice

__all__ = ["Swim"]


class Swim:
    """One peer's membership.

    Args:
        me: our own record, ALIVE. `incarnation` and `session` come from the shell: persisted values + 1 (the
            session at least the wall clock in ms, so that of two processes the younger has the greater).
        config: settings, the same at all peers of a cluster.
        rng: the only source of randomness.
        seeds: addresses "host:port" to join through; they may be down, and may contain our own.
        known: members known from the start; pass one shared `MemberTable` to many machines of a simulation.

    Raises:
        InvalidMember: `me` has no id or no address, or is not alive.
    """

    def __init__(
        self,
        *,
        me: Member,
        config: SwimConfig,
        rng: random.Random,
        seeds: Sequence[str] = (),
        known: Iterable[Member] = (),
    ) -> None:
        if not me.id or not me.address or me.status is not Status.ALIVE:
            raise InvalidMember(f"a peer starts with an id, an address and the status alive, not as {me}")
        base = known if isinstance(known, MemberTable) else MemberTable(known)
        mine = base.by_id.get(me.id)
        if mine is not None and supersedes(mine, me):
            me = replace(me, incarnation=mine.incarnation + 1)
        self._config = config
        self._rng = rng
        self._awareness = Awareness(config.awareness_max)
        self._beliefs = Beliefs(me=me, config=config, awareness=self._awareness, base=base)
        self._voice = Voice(beliefs=self._beliefs, config=config, rng=rng)
        self._identity = Identity(
            beliefs=self._beliefs,
            voice=self._voice,
            awareness=self._awareness,
            config=config,
            admitted=mine is not None and mine.session == me.session,
        )
        self._seeds = Seeds([address for address in seeds if address != me.address])
        self._relays = Relays(config.relays_max)
        self._detours = Detours()
        self._probe: Probe | None = None
        self._known_as_we_are = mine == me
        self._started = False
        self._gone = False
        self._now = 0.0
        self._gossiped_at = -inf
        self._probe_at = inf
        self._gossip_at = inf
        self._sync_at = inf
        self._knock_at = inf
        self._leave_at = inf
        self._deadline = inf
        self._scheduled_version = -1

    # ------------------------------------------------------------------ what the shell calls

    def start(self, now: float) -> list[Effect]:
        """Begin: tell who we are, ask the seeds, and schedule the first probe.

        Args:
            now: seconds of the shell's monotonic clock, as in all other calls.
        """
        self._started = True
        self._now = now
        self._deadline = inf
        out: list[Effect] = [Persist(self.me.incarnation, self.me.session)]
        self._beliefs.start(now)
        if not self._known_as_we_are:
            self._beliefs.queue.put(Rumour(member=self.me))
        for seed in self._silent_seeds():
            self._ask(seed, out)
        self._schedule(now)
        return out

    def receive(self, message: Message, sender: NodeId, now: float) -> list[Effect]:
        """Take a message.

        Args:
            message: what was said.
            sender: who said it, as the connection has authenticated it.
            now: in seconds.
        """
        if self.stopped:
            return []
        self._wake(now)
        out: list[Effect] = []
        if sender == self._beliefs.me.id:
            self._on_double(message, out)
        else:
            match message:
                case Ping():
                    self._on_ping(message, sender, now, out)
                case Ack():
                    self._on_ack(message, sender, now, out)
                case Gossip():
                    self._on_gossip(message, sender, now, out)
                case PingRequest():
                    self._on_ping_request(message, sender, now, out)
                case Nack():
                    self._on_nack(message, sender)
                case SyncRequest():
                    self._on_sync_request(message, sender, now, out)
                case SyncState():
                    self._on_sync_state(message, sender, now, out)
                case Conflict():
                    self._identity.hear_conflict(message, out)
                case _:
                    assert_never(message)
        self._schedule(now)
        return out

    def tick(self, now: float) -> list[Effect]:
        """Do what is due at `now` (seconds); does nothing if nothing is."""
        if self.stopped:
            return []
        self._wake(now)
        out: list[Effect] = []
        if self._probe is not None and self._probe.direct_until_s <= now:
            self._ask_relays(self._probe, out)
        if self._probe_at <= now:
            self._probe_next(now, out)
        if self._beliefs.suspicions.deadline_s <= now:
            self._beliefs.bury_due(now, out)
        if self._relays.deadline_s <= now:
            for relay in self._relays.pop_silent(now):
                out.append(Send(relay.reply_to, relay.requester, Nack(number=relay.number)))
        if self._identity.door.deadline_s <= now:
            self._identity.examine_due(now, out)
        if self._sync_at <= now:
            self._sync_with_one(now, out)
        if self._knock_at <= now:
            self._knock(now, out)
        if self._beliefs.reap_at <= now:
            self._beliefs.reap_due(now)
        if self._gossip_at <= now:
            self._gossip_at = inf
            self._gossiped_at = now
            out.extend(self._voice.gossip(now))
        self._schedule(now)
        return out

    def next_deadline(self) -> float:
        """Return when `tick` has something to do, in seconds; infinity when never."""
        return self._deadline

    def leave(self, now: float) -> list[Effect]:
        """Say goodbye.

        We go on answering until the news has been told often enough to reach everybody, or until
        `leave_timeout_s` has passed; then `has_left` is true. Nobody will suspect us. A second call changes
        nothing.
        """
        self._refuse_if_stopped()
        if self._identity.leaving:
            return []
        self._wake(now)
        self._identity.leaving = True
        self._beliefs.become(replace(self.me, status=Status.LEFT))
        self._probe = None
        self._probe_at = self._sync_at = self._knock_at = inf
        self._leave_at = now + self._config.leave_timeout_s
        self._schedule(now)
        return []

    def observe_lag(self, lag_s: float, now: float) -> None:
        """Take note that the shell's loop was late by `lag_s` seconds.

        Beyond `lag_tolerance_s` it counts as ill health, and those we wait for get that much more time. Calls
        that come late are noticed anyway; this is for lag that the shell sees in another way.
        """
        if not self.stopped and lag_s > self._config.lag_tolerance_s:
            self._oversleep(lag_s, now)
            self._schedule(now)

    def update_self(
        self,
        now: float,
        *,
        address: str | None = None,
        zone: str | None = None,
        weight: int | None = None,
        slots: int | None = None,
        meta: tuple[tuple[str, str], ...] | None = None,
    ) -> list[Effect]:
        """Change what we say of ourselves and tell everybody; None leaves a field as it is.

        Raises our incarnation, so that the change outbids what is known.
        """
        self._refuse_if_stopped()
        self._wake(now)
        before = self.me
        me = replace(
            before,
            address=before.address if address is None else address,
            zone=before.zone if zone is None else zone,
            weight=before.weight if weight is None else weight,
            slots=before.slots if slots is None else slots,
            meta=before.meta if meta is None else meta,
        )
        if me == before or self._identity.leaving:
            return []
        me = replace(me, incarnation=me.incarnation + 1)
        self._beliefs.become(me)
        self._schedule(now)
        return [Persist(me.incarnation, me.session)]

    @property
    def me(self) -> Member:
        """Our own record."""
        return self._beliefs.me

    @property
    def view(self) -> View:
        """Everybody as we see them, ourselves included; built when asked for, again only after a change."""
        return self._beliefs.members.view()

    @property
    def version(self) -> int:
        """The version of `view`, without building it."""
        return self._beliefs.members.version

    @property
    def health(self) -> int:
        """Our own ill health: 0 is well, `config.awareness_max` is worst."""
        return self._awareness.score

    @property
    def has_left(self) -> bool:
        """Whether our goodbye has spread, or timed out."""
        return self._gone

    @property
    def stopped(self) -> bool:
        """Whether we have left, were refused, or never started: this machine does nothing."""
        return not self._started or self._gone or self._identity.refused

    def get(self, node: NodeId) -> Member | None:
        """Return what we believe about a node, without building the view."""
        return self._beliefs.members.get(node)

    def detour(self, node: NodeId) -> Member | None:
        """Return the member that passes messages on to a node which we do not reach ourselves.

        None where no detour is needed or known; see `membership.detours`.
        """
        relay = self._detours.to(node)
        if relay is None or node not in self._beliefs.roster or not self._beliefs.is_alive(relay):
            return None
        return self._beliefs.members.get(relay)

    def why(self, node: NodeId) -> tuple[WhyEntry, ...]:
        """Return who suspected, confirmed, refuted a node, and when; the last `history_max`, oldest first."""
        return self._beliefs.history.of(node)

    # ------------------------------------------------------------------ time

    def _wake(self, now: float) -> None:
        late_s = now - self._deadline
        if late_s > self._config.lag_tolerance_s:
            self._oversleep(late_s, now)
        elif now < self._now:
            self._postpone(now - self._now, now)  # the clock was set back
        self._now = now

    def _oversleep(self, late_s: float, now: float) -> None:
        self._awareness.worsen(1)
        # One timeout more than we slept: whatever has come meanwhile is read first.
        self._postpone(late_s + self._config.probe_timeout_s, now)

    def _postpone(self, by_s: float, now: float) -> None:
        """Move the deadlines of those we wait for; what we do by ourselves is due now at the earliest."""
        if self._probe is not None:
            self._probe.direct_until_s += by_s
            self._probe_at += by_s
        self._beliefs.suspicions.postpone(by_s)
        self._relays.postpone(by_s)
        self._identity.door.postpone(by_s)
        set_back_s = min(0.0, by_s)
        self._gossiped_at += set_back_s
        self._probe_at = max(now, self._probe_at + (set_back_s if self._probe is None else 0.0))
        self._gossip_at = max(now, self._gossip_at + set_back_s)
        self._sync_at = max(now, self._sync_at + set_back_s)
        self._knock_at = max(now, self._knock_at + set_back_s)
        self._leave_at = max(now, self._leave_at + set_back_s)
        # Nothing may stay in the past: the next message would find us asleep again and add the sleep again.
        self._beliefs.reap_at = max(now, self._beliefs.reap_at)

    def _schedule(self, now: float) -> None:
        """Begin what has become worth doing, and compute the next deadline."""
        beliefs = self._beliefs
        if self._identity.leaving and (now >= self._leave_at or self._told_goodbye()):
            self._gone = True
        if self.stopped:
            self._deadline = inf
            return
        if self._scheduled_version != beliefs.members.version:
            self._scheduled_version = beliefs.members.version
            self._begin_worthwhile(now)
        if self._gossip_at == inf and beliefs.queue and beliefs.roster:
            self._gossip_at = max(now, self._gossiped_at + self._config.gossip_period_s)
        self._deadline = min(
            self._probe_at,
            inf if self._probe is None else self._probe.direct_until_s,
            self._gossip_at,
            self._sync_at,
            self._knock_at,
            self._leave_at,
            self._relays.deadline_s,
            self._identity.door.deadline_s,
            beliefs.suspicions.deadline_s,
            beliefs.reap_at,
        )

    def _begin_worthwhile(self, now: float) -> None:
        """After a change in the table: there may be somebody to probe, or to look for, who was not before."""
        if self._identity.leaving:
            return
        if self._beliefs.roster:
            if self._probe_at == inf:
                self._probe_at = now + self._rng.random() * self._config.probe_period_s
            if self._sync_at == inf:
                self._sync_at = now + self._rng.random() * self._sync_period_s()
        if self._knock_at == inf and (self._beliefs.lost() or self._silent_seeds()):
            self._knock_at = now + self._knock_period_s()

    def _told_goodbye(self) -> bool:
        return self.me.id not in self._beliefs.queue or not self._beliefs.roster

    # ------------------------------------------------------------------ probing (SWIM 3.1; Lifeguard IV-A)

    def _probe_next(self, now: float, out: list[Effect]) -> None:
        ended = self._probe
        if ended is not None:
            self._detours.probed(ended, self._beliefs.roster)
        if ended is not None and not ended.answered:
            member = self._beliefs.members.get(ended.target)
            # With a new incarnation it has objected meanwhile, so it was there.
            if member is not None and member.incarnation == ended.incarnation:
                self._beliefs.accuse(ended.target, now, out)
            self._awareness.worsen(ended.ill_health(self._beliefs.is_alive))
        self._probe = None
        target = self._beliefs.roster.next(self._rng)
        member = None if target is None else self._beliefs.members.get(target)
        if member is None:
            self._probe_at = inf
            return
        self._probe_at = now + self._awareness.scale(self._config.probe_period_s)
        self._probe = Probe(
            number=self._voice.next_number(),
            target=member.id,
            incarnation=member.incarnation,
            accused=member.status is Status.SUSPECT,
            direct_until_s=now + self._awareness.scale(self._config.probe_timeout_s),
        )
        out.append(self._voice.ping(member, self._probe.number))

    def _ask_relays(self, probe: Probe, out: list[Effect]) -> None:
        probe.direct_until_s = inf
        target = self._beliefs.members.get(probe.target)
        if target is None:
            return
        k = self._config.indirect_probes
        # Twice as many are drawn as needed, as a suspect makes a poor relay.
        drawn = self._beliefs.roster.sample(2 * k, self._rng, without=target.id)
        if (detour := self._detours.to(target.id)) is not None:
            drawn = list(dict.fromkeys((detour, *drawn)))
        relays = [node for node in drawn if self._beliefs.is_alive(node)][:k]
        probe.relays = len(relays)
        probe.silent_relays = relays.copy()
        out.extend(self._voice.ping_request(relay, target, probe.number) for relay in relays)
        if len(relays) < k:
            out.append(self._voice.ping(target, probe.number))

    def _on_ping(self, ping: Ping, sender: NodeId, now: float, out: list[Effect]) -> None:
        if ping.target != self.me.id:
            return
        self._hear_all(ping.rumours, sender, now, out)
        out.append(self._voice.ack(ping.number, sender, ping.reply_to))
        if self._beliefs.known(sender) is None:
            # It knows us, we don't know it: we have restarted, or its introduction was lost.
            out.append(Send(ping.reply_to, sender, self._voice.sync_request()))

    def _on_ack(self, ack: Ack, sender: NodeId, now: float, out: list[Effect]) -> None:
        probe = self._probe
        if probe is not None and ack.number == probe.number:
            if not probe.answered:
                self._awareness.improve()
            probe.answer(sender)
        elif (relay := self._relays.pop(ack.number)) is not None:
            out.append(self._voice.ack(relay.number, relay.requester, relay.reply_to))
        else:
            self._identity.hear_holder(ack.number, out)
        self._hear_all(ack.rumours, sender, now, out)

    def _on_nack(self, nack: Nack, sender: NodeId) -> None:
        probe = self._probe
        if probe is not None and nack.number == probe.number and sender in probe.silent_relays:
            probe.silent_relays.remove(sender)

    def _on_ping_request(self, request: PingRequest, sender: NodeId, now: float, out: list[Effect]) -> None:
        self._hear_all(request.rumours, sender, now, out)
        if request.target == self.me.id:
            return
        number = self._voice.next_number()
        relay = Relay(
            number=request.number,
            requester=sender,
            reply_to=request.reply_to,
            nack_at_s=now + self._config.probe_timeout_s * self._config.nack_fraction,
            drop_at_s=now + self._config.probe_period_s,
        )
        if self._relays.add(number, relay):
            target = self._beliefs.members.get(request.target)
            if target is None or target.address != request.target_address:
                target = Member(id=request.target, address=request.target_address)
            out.append(self._voice.ping(target, number))

    # ------------------------------------------------------------------ hearing

    def _on_gossip(self, gossip: Gossip, sender: NodeId, now: float, out: list[Effect]) -> None:
        self._hear_all(gossip.rumours, sender, now, out)
        known = self._beliefs.known(sender)
        if known is not None and known.status is Status.DEAD:
            # Only itself can put it right. Not by a Gossip: where each holds the other for dead, that would
            # be answered by another, for ever. An exchange of states tells both the truth, and ends.
            out.append(Send(known.address, sender, self._voice.sync_request()))

    def _on_double(self, message: Message, out: list[Effect]) -> None:
        """A message under our own id: we talk to ourselves, or to a second process (see `identity`)."""
        if isinstance(message, Conflict):
            self._identity.hear_conflict(message, out)
        elif isinstance(message, SyncRequest | SyncState) and message.me.id == self.me.id:
            if message.me.session == self.me.session:
                self._seeds.answered(message.number, self.me.id)  # a seed turned out to be our own address
            else:
                self._identity.meet_double(message.me, out)

    def _hear_all(self, rumours: tuple[Rumour, ...], sender: NodeId, now: float, out: list[Effect]) -> None:
        for rumour in rumours:
            self._hear(rumour.member, rumour.accusers, sender, now, out)

    def _hear(
        self, record: Member, accusers: tuple[NodeId, ...], sender: NodeId, now: float, out: list[Effect]
    ) -> None:
        if record.id == self._beliefs.me.id:
            self._hear_of_me(record, accusers, now, out)
        elif record.id == sender and self._identity.is_doubtful(record):
            self._identity.challenge(record, now, out)
        else:
            self._beliefs.hear(record, accusers, now, out)

    def _hear_of_me(
        self, record: Member, accusers: tuple[NodeId, ...], now: float, out: list[Effect]
    ) -> None:
        self._identity.hear(record, accusers, now, out)

    # ------------------------------------------------------------------ comparing notes (see `sync`)

    def _sync_with_one(self, now: float, out: list[Effect]) -> None:
        self._sync_at = now + self._sync_period_s() if self._beliefs.roster else inf
        for node in self._beliefs.roster.sample(1, self._rng):
            out.append(self._send(node, self._voice.sync_request()))

    def _on_sync_request(self, request: SyncRequest, sender: NodeId, now: float, out: list[Effect]) -> None:
        if request.me.id != sender:
            return  # nobody introduces another one this way
        self._seeds.heard_from(request.me.address, sender)
        doubtful = self._identity.is_doubtful(request.me)
        self._hear(request.me, (), sender, now, out)
        # A doubtful claimant learns nothing, not even that it was heard, and comes again.
        if not doubtful:
            out.extend(self._voice.sync_answer(request))

    def _on_sync_state(self, state: SyncState, sender: NodeId, now: float, out: list[Effect]) -> None:
        if state.me.id != sender:
            return
        self._seeds.answered(state.number, sender)
        self._hear(state.me, (), sender, now, out)
        for member in state.members:
            if member.id == self.me.id:
                self._hear_of_me(member, (sender,), now, out)
            elif member.id != sender:
                self._beliefs.hear_in_state(member, sender, now, out)
        if state.reply_wanted:
            mine = [member for _, some in self._beliefs.members.in_buckets(state.buckets) for member in some]
            out.extend(self._voice.sync_reply(state, better_than(mine, (state.me, *state.members))))

    def _sync_period_s(self) -> float:
        return sync_period_s(self._config.sync_period_s, len(self._beliefs.roster) + 1)

    # ------------------------------------------------------------------ knocking, so that islands heal

    def _knock(self, now: float, out: list[Effect]) -> None:
        silent, lost = self._silent_seeds(), self._beliefs.lost()
        if silent and self._beliefs.roster:
            silent = [silent[int(self._rng.random() * len(silent))]]
        for seed in silent:
            if seed.number >= 0 and seed.node is None and not seed.announced:
                seed.announced = True
                out.append(Announce(SeedSilent(seed.address)))
            self._ask(seed, out)
        if lost:
            member = self._beliefs.lost_one(int(self._rng.random() * lost))
            if member is not None:
                out.append(Send(member.address, member.id, self._voice.sync_request()))
        self._knock_at = now + self._knock_period_s() if silent or lost else inf

    def _knock_period_s(self) -> float:
        alone = not self._beliefs.roster
        return self._config.join_retry_s if alone else self._config.reconnect_period_s

    def _ask(self, seed: Seed, out: list[Effect]) -> None:
        request = self._voice.sync_request()
        seed.number = request.number
        out.append(Send(seed.address, None, request))

    def _silent_seeds(self) -> list[Seed]:
        if not self._seeds:
            return []
        return self._seeds.silent(lambda node: node == self.me.id or node in self._beliefs.roster)

    # ------------------------------------------------------------------ odds and ends

    def _send(self, node: NodeId, message: Message) -> Send:
        return self._voice.send(node, message)

    def _refuse_if_stopped(self) -> None:
        if self.stopped:
            raise SwimStopped(f"{self.me.id} has not started, has left, or was refused its identity")
