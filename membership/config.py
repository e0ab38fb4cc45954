"""Every number that membership uses, three profiles of them, and the relations they must keep.

Why these values
----------------
LAN is memberlist's well-tried profile: a period of 1 s, 0.5 s for the direct probe, three indirect ones, a
suspicion of 4 · log10 N periods that starts six times as long and shrinks with two confirmations.

LOCAL is for peers on one machine. A round trip takes well under a millisecond there, so silence means death,
or a process that is not given the processor. It must be quick about the one without being taken in by the
other:

- A dead peer is first probed after half a period to a period (0.4 s), suspected when that probe has failed
  (0.4 s), and dead after 2 · log10 N further periods (0.8 s to 1 s) if one other peer found it silent too.
  The median until all know is 1.4 s for 2 to 4 peers and 1.6 s for 16 (`tests/membership/test_swim_claims.py`
  holds it below 2 s).
- A living peer is accused only if for 0.4 s it is not scheduled once, neither for the direct ping nor for
  three indirect ones, and buried only if it is not for another 0.8 s. If it is the accuser that is starved,
  it notices by its own late wake-ups (`lag_tolerance_s`) and waits.
- One accuser alone needs 3.2 s.

WAN is LAN five times slower: round trips of up to a second, losses in bursts. Its suspicions are longer
still.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10

from membership.errors import InvalidConfig

__all__ = ["LAN", "LOCAL", "WAN", "SwimConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwimConfig:
    """Settings of one peer's membership; peers of one cluster should use the same.

    Attributes:
        probe_period_s: one member is probed in each.
        probe_timeout_s: how long a direct ping may take before others are asked to ping too.
        indirect_probes: how many others are asked.
        nack_fraction: a relay says "no answer yet" after this part of probe_timeout_s.
        suspicion_mult: a suspicion confirmed often enough lasts suspicion_mult * max(1, log10 N) periods.
        suspicion_max_mult: an unconfirmed one lasts this many times as long.
        suspicion_confirmations: how many further accusers shrink it to the shortest.
        awareness_max: cap of the local health score (0 is healthy); periods and timeouts are multiplied by 1
            + score.
        lag_tolerance_s: a wake-up later than this means that we, not the others, were asleep.
        gossip_period_s: news go out this often while there are any, and not at all otherwise.
        gossip_fanout: to so many peers each time.
        gossip_to_dead_s: of those who died within this time, one is told so with each round of gossip, in
            case it is alive and can object.
        retransmit_mult: each rumour is sent retransmit_mult * ceil(log10(N + 1)) times by each peer.
        rumour_bytes_max: estimated size of the rumours in one message; at least one always fits.
        sync_period_s: one random member is compared notes with this often (more rarely above 32 members).
        sync_members_max: so many records in one SyncState, about; a bucket is not split.
        join_retry_s: seeds are asked this often while nobody else is known.
        reconnect_period_s: one silent seed or dead member is tried this often, for ever.
        leave_timeout_s: a leave counts as spread after this at the latest.
        reap_after_s: the dead and departed are forgotten after this, but for their incarnation.
        tombstones_max: of so many forgotten ones the last record is kept; then the oldest goes.
        members_max: records kept at most; news of further nodes is dropped.
        relays_max: pings on others' behalf under way at most; further requests are dropped.
        challenges_max: doubtful identities examined at a time; further claimants are told nothing and retry.
        challenge_pings: how often the old holder of an id is pinged before a claimant gets it.
        history_max: entries kept for each member for `Swim.why`; the oldest go first.
    """

    probe_period_s: float
    probe_timeout_s: float
    indirect_probes: int = 3
    nack_fraction: float = 0.8
    suspicion_mult: float = 4.0
    suspicion_max_mult: float = 6.0
    suspicion_confirmations: int = 2
    awareness_max: int = 8
    lag_tolerance_s: float
    gossip_period_s: float
    gossip_fanout: int = 3
    gossip_to_dead_s: float
    retransmit_mult: int = 4
    rumour_bytes_max: int = 4096
    sync_period_s: float
    sync_members_max: int = 500
    join_retry_s: float
    reconnect_period_s: float
    leave_timeout_s: float
    reap_after_s: float
    tombstones_max: int = 10_000
    members_max: int = 100_000
    relays_max: int = 256
    challenges_max: int = 16
    challenge_pings: int = 3
    history_max: int = 32

    def __post_init__(self) -> None:
        positive = (
            "probe_period_s",
            "probe_timeout_s",
            "lag_tolerance_s",
            "gossip_period_s",
            "gossip_fanout",
            "gossip_to_dead_s",
            "retransmit_mult",
            "rumour_bytes_max",
            "sync_period_s",
            "sync_members_max",
            "join_retry_s",
            "reconnect_period_s",
            "leave_timeout_s",
            "reap_after_s",
            "suspicion_mult",
            "tombstones_max",
            "members_max",
            "relays_max",
            "challenges_max",
            "challenge_pings",
            "history_max",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise InvalidConfig(f"{name} must be positive, not {getattr(self, name)!r}")
        for name in ("indirect_probes", "suspicion_confirmations", "awareness_max"):
            if getattr(self, name) < 0:
                raise InvalidConfig(f"{name} must not be negative, but is {getattr(self, name)!r}")
        for holds, message in self._relations():
            if not holds:
                raise InvalidConfig(message)

    def _relations(self) -> tuple[tuple[bool, str], ...]:
        nack_s = self.probe_timeout_s * self.nack_fraction
        return (
            (
                0 < self.nack_fraction < 1,
                f"nack_fraction ({self.nack_fraction}) must lie between 0 and 1: a relay says nack before "
                f"its requester's probe_timeout_s ({self.probe_timeout_s}) has passed again",
            ),
            (
                self.probe_timeout_s + nack_s < self.probe_period_s,
                f"probe_period_s ({self.probe_period_s}) must be longer than probe_timeout_s plus "
                f"nack_fraction of it ({self.probe_timeout_s} + {nack_s:g}): indirect probes must be able to "
                "answer within the period",
            ),
            (
                self.gossip_period_s <= self.probe_period_s,
                f"gossip_period_s ({self.gossip_period_s}) must not exceed probe_period_s "
                f"({self.probe_period_s}): a suspect must hear of the accusation before its time is up",
            ),
            (
                self.suspicion_max_mult >= 1,
                f"suspicion_max_mult ({self.suspicion_max_mult}) must be at least 1: it is a multiple of the "
                f"shortest suspicion (suspicion_mult, {self.suspicion_mult})",
            ),
            (
                self.suspicion_mult * self.probe_period_s >= 4 * self.gossip_period_s,
                f"suspicion_mult ({self.suspicion_mult}) periods must last at least four gossip_period_s "
                f"({self.gossip_period_s}): there and back takes the accusation and the refutation two each",
            ),
            (
                self.reap_after_s > self.gossip_to_dead_s,
                f"reap_after_s ({self.reap_after_s}) must be longer than gossip_to_dead_s "
                f"({self.gossip_to_dead_s})",
            ),
            (
                self.reconnect_period_s >= self.join_retry_s,
                f"reconnect_period_s ({self.reconnect_period_s}) must not be shorter than join_retry_s "
                f"({self.join_retry_s}): a lonely peer is the one that should hurry",
            ),
        )

    def suspicion_min_s(self, members: int) -> float:
        """Return how long the best confirmed suspicion lasts among so many members, in seconds."""
        return self.suspicion_mult * max(1.0, log10(max(1, members))) * self.probe_period_s


LOCAL = SwimConfig(
    probe_period_s=0.4,
    probe_timeout_s=0.15,
    suspicion_mult=2.0,
    suspicion_max_mult=4.0,
    suspicion_confirmations=1,
    lag_tolerance_s=0.1,
    gossip_period_s=0.1,
    gossip_to_dead_s=15.0,
    sync_period_s=15.0,
    join_retry_s=0.5,
    reconnect_period_s=2.0,
    leave_timeout_s=1.0,
    reap_after_s=3600.0,
)
"""Peers on one machine."""

LAN = SwimConfig(
    probe_period_s=1.0,
    probe_timeout_s=0.5,
    lag_tolerance_s=0.25,
    gossip_period_s=0.2,
    gossip_to_dead_s=30.0,
    sync_period_s=30.0,
    join_retry_s=2.0,
    reconnect_period_s=10.0,
    leave_timeout_s=5.0,
    reap_after_s=24 * 3600.0,
)
"""Peers in one data centre."""

WAN = SwimConfig(
    probe_period_s=5.0,
    probe_timeout_s=2.5,
    suspicion_mult=6.0,
    lag_tolerance_s=1.0,
    gossip_period_s=0.5,
    gossip_fanout=4,
    gossip_to_dead_s=60.0,
    sync_period_s=60.0,
    join_retry_s=5.0,
    reconnect_period_s=30.0,
    leave_timeout_s=15.0,
    reap_after_s=48 * 3600.0,
)
"""Peers across continents."""
