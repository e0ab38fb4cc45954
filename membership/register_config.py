"""Times and bounds of registers and elections, two profiles of them, and the relations they must keep.

Why these values
----------------
Safety depends on none of them. A round trip with a sync takes a few milliseconds, so an answer that is not
there after `retransmit_s` is lost, and a round without a majority after `quorum_patience_s` is worth telling
somebody. Two proposers that outbid each other in turns make progress once their random rests differ by a
round trip, hence a rest of a few round trips that doubles.

A takeover costs what it takes to notice the silence (membership's suspicion, or `silence_s` without it), the
poll, and two round trips. `stagger_s` is longer than a poll and those two, so that the second in rank finds
the first already leading.
"""

from __future__ import annotations

from dataclasses import dataclass

from membership.errors import InvalidConfig

__all__ = ["LAN_REGISTER", "LOCAL_REGISTER", "RegisterConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterConfig:
    """Settings of a node's registers.

    Attributes:
        retransmit_s: a request without an answer is sent again after this, then after twice this, and so on.
        retransmit_max_s: but at least this often.
        quorum_patience_s: a round without a majority for so long is reported.
        rest_s: who is outbid rests for a random time up to this, twice it, and so on ...
        rest_max_s: ... up to this.
        outbids_max: who leads no key gives its changes up after being outbid so many times in a row.
        batch_s: the distinguished proposer waits so long for more changes before it begins a round.
        batch_max: changes in one round.
        proposals_max: changes waiting at one proposer.
        payload_bytes_max: a change that makes the payload longer is refused.
        keys_max: registers that one acceptor keeps.
        heartbeat_s: a leader says so this often.
        silence_s: who has not heard the leader for so long does not hear it.
        desertion_s: a silence so long needs no suspicion by membership: the peer may live and lead no more.
        stagger_s: the second in rank waits this much longer than the first before it stands, and so on.
        poll_timeout_s: how long others may take to say whether they hear the leader.
        ill_health: from this awareness score on, a node lets all others stand first.
    """

    retransmit_s: float
    retransmit_max_s: float
    quorum_patience_s: float
    rest_s: float
    rest_max_s: float
    outbids_max: int = 30
    batch_s: float = 0.02
    batch_max: int = 1_000
    proposals_max: int = 10_000
    payload_bytes_max: int = 512 * 1024
    keys_max: int = 100_000
    heartbeat_s: float
    silence_s: float
    desertion_s: float
    stagger_s: float
    poll_timeout_s: float
    ill_health: int = 3

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name != "batch_s" and not value > 0:
                raise InvalidConfig(f"{name} must be positive, not {value!r}")
        if self.batch_s < 0:
            raise InvalidConfig(f"batch_s must not be negative, but is {self.batch_s!r}")
        for holds, message in self._relations():
            if not holds:
                raise InvalidConfig(message)

    def _relations(self) -> tuple[tuple[bool, str], ...]:
        return (
            (
                self.retransmit_s <= self.retransmit_max_s,
                f"retransmit_s ({self.retransmit_s}) must not exceed retransmit_max_s "
                f"({self.retransmit_max_s})",
            ),
            (
                self.rest_s <= self.rest_max_s,
                f"rest_s ({self.rest_s}) must not exceed rest_max_s ({self.rest_max_s})",
            ),
            (
                self.retransmit_s < self.quorum_patience_s,
                f"quorum_patience_s ({self.quorum_patience_s}) must be longer than retransmit_s "
                f"({self.retransmit_s}): one lost message is no lost quorum",
            ),
            (
                2 * self.heartbeat_s < self.silence_s,
                f"silence_s ({self.silence_s}) must be longer than two heartbeat_s ({self.heartbeat_s}): one "
                "lost heartbeat is no silence",
            ),
            (
                self.silence_s <= self.desertion_s,
                f"desertion_s ({self.desertion_s}) must not be shorter than silence_s ({self.silence_s})",
            ),
            (
                self.poll_timeout_s <= self.stagger_s,
                f"stagger_s ({self.stagger_s}) must not be shorter than poll_timeout_s "
                f"({self.poll_timeout_s}): the first in rank must have asked before the second does",
            ),
        )


LOCAL_REGISTER = RegisterConfig(
    retransmit_s=0.1,
    retransmit_max_s=1.0,
    quorum_patience_s=1.0,
    rest_s=0.02,
    rest_max_s=1.0,
    heartbeat_s=0.15,
    silence_s=0.6,
    desertion_s=1.8,
    stagger_s=0.25,
    poll_timeout_s=0.15,
)
"""Peers on one machine."""

LAN_REGISTER = RegisterConfig(
    retransmit_s=0.25,
    retransmit_max_s=2.0,
    quorum_patience_s=3.0,
    rest_s=0.05,
    rest_max_s=2.0,
    heartbeat_s=0.5,
    silence_s=2.0,
    desertion_s=6.0,
    stagger_s=0.75,
    poll_timeout_s=0.5,
)
"""Peers in one data centre."""
