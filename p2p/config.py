"""How a peer is set up, checked where it is born."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from membership.config import LAN, LOCAL, WAN, SwimConfig
from membership.ring import MAX_WEIGHT
from p2p.addresses import HostPort, outbound_host, parse_address, resolve
from p2p.errors import BadConfig
from p2p.key_source import KeySource

__all__ = ["PROFILES", "PeerConfig"]

PROFILES: Mapping[str, SwimConfig] = {"local": LOCAL, "lan": LAN, "wan": WAN}
MAX_JOIN = 64
MAX_SLOTS = 4_096
MAX_ZONE_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """Everything a peer is told when it starts.

    Attributes:
        listen: where the control inbox is bound; a number, not a name; port 0 for any free one.
        bulk_port: the port of the bulk inbox, 0 for any free one.
        advertise: what others connect to; not `listen` behind a wildcard or an address translation.
        join: addresses to join through, resolved.
        data: the data directory, None for a temporary one.
        slots: how many tasks it runs at a time.
        zone: its failure domain, empty where zones are not used.
        weight: its share of the ring; 0 owns nothing.
        swim: membership's settings.
        keys: where the keys are.
    """

    listen: HostPort
    bulk_port: int
    advertise: HostPort
    join: tuple[HostPort, ...]
    data: Path | None
    slots: int
    zone: str
    weight: int
    swim: SwimConfig
    keys: KeySource

    def __post_init__(self) -> None:
        """Check what no single option can see.

        Raises:
            BadConfig: two settings do not go together, or one is out of range.
        """
        if not 0 < self.slots <= MAX_SLOTS:
            raise BadConfig(f"a peer has 1 to {MAX_SLOTS} slots, not {self.slots}")
        if not 0 <= self.weight <= MAX_WEIGHT:
            raise BadConfig(f"a peer's weight is 0 to {int(MAX_WEIGHT)}, not {self.weight}")
        if (
            len(self.zone) > MAX_ZONE_CHARS
            or not self.zone.isascii()
            or not self.zone.isprintable()
            or " " in self.zone
        ):
            raise BadConfig(
                f"a zone is at most {MAX_ZONE_CHARS} ASCII characters without spaces, not {self.zone!r}"
            )
        if self.bulk_port and self.bulk_port == self.listen.port:
            raise BadConfig(f"listen and bulk-port name the same port, {self.bulk_port}")
        if len(self.join) > MAX_JOIN:
            raise BadConfig(f"{len(self.join)} addresses to join through, at most {MAX_JOIN} are allowed")
        if self.advertise.is_loopback != self.listen.is_loopback and not self.listen.is_wildcard:
            raise BadConfig(
                f"listening on {self.listen}, nobody could connect to the advertised {self.advertise}"
            )

    @classmethod
    def from_text(
        cls,
        *,
        listen: str,
        join: tuple[str, ...],
        advertise: str | None = None,
        bulk_port: int = 0,
        data: Path | None = None,
        slots: int | None = None,
        zone: str = "",
        weight: int = 1,
        profile: str | None = None,
        keys: KeySource,
    ) -> PeerConfig:
        """Resolve names and fill in what was left open.

        Args:
            slots: None for one for each processor.
            profile: a name in `PROFILES`; None chooses `local` on loopback and `lan` elsewhere.

        Raises:
            BadAddress, NameNotResolved, BadConfig: one line each.
        """
        seeds = tuple(resolve(parse_address(address)) for address in join)
        bound = resolve(parse_address(listen))
        if profile is not None and profile not in PROFILES:
            raise BadConfig(f"there is no profile {profile!r}: choose from {', '.join(PROFILES)}")
        return cls(
            listen=bound,
            bulk_port=bulk_port,
            advertise=_advertised(bound, advertise, seeds),
            join=seeds,
            data=data,
            slots=slots if slots is not None else os.cpu_count() or 1,
            zone=zone,
            weight=weight,
            swim=PROFILES[profile or ("local" if bound.is_loopback else "lan")],
            keys=keys,
        )


def _advertised(bound: HostPort, advertise: str | None, seeds: tuple[HostPort, ...]) -> HostPort:
    if advertise is not None:
        return resolve(parse_address(advertise if ":" in advertise else f"{advertise}:{bound.port}"))
    if not bound.is_wildcard:
        return bound
    # All interfaces: others are told the one that leads towards the seeds.
    for seed in seeds:
        host = outbound_host(seed)
        if host is not None:
            return HostPort(host, bound.port)
    raise BadConfig(
        f"listening on {bound}, what should others connect to? Say --advertise HOST, or listen on one address"
    )
