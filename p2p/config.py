"""How a peer is set up, checked where it is born, and where its keys come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from membership.config import LAN, LOCAL, WAN, SwimConfig
from membership.ring import MAX_WEIGHT
from p2p import keys
from p2p.addresses import HostPort, outbound_host, parse_address, resolve
from p2p.errors import BadConfig, KeysMissing
from p2p.keys import Token

__all__ = ["PROFILES", "KeySource", "PeerConfig"]

PROFILES: Mapping[str, SwimConfig] = {"local": LOCAL, "lan": LAN, "wan": WAN}
MAX_JOIN = 64
MAX_SLOTS = 4_096
MAX_ZONE_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where the keys are.

    Attributes:
        directory: holds `keys.json`; None for the default below the user's state directory.
        cluster: its name; None takes that of the keys, or `default`.
        token: a token's text, used instead of any file; None without.
    """

    directory: Path | None = None
    cluster: str | None = None
    token: str | None = None

    @property
    def path(self) -> Path:
        """The directory that holds the keys, or would."""
        if self.directory is not None:
            return self.directory
        return keys.default_directory(self.cluster or keys.DEFAULT_CLUSTER, os.environ)

    def load(self) -> Token:
        """The keys, and the addresses if a token brought some.

        Raises: as `p2p.keys.load` and `p2p.keys.Token.from_text`.
        """
        if self.token is None:
            wanted = self.cluster or (None if self.directory is not None else keys.DEFAULT_CLUSTER)
            return Token(keys.load(self.path, wanted))
        token = Token.from_text(self.token)
        if self.cluster is not None and self.cluster != token.keys.cluster:
            raise BadConfig(f"the token is for cluster {token.keys.cluster!r}, not for {self.cluster!r}")
        return token

    def load_to_serve(self, listen: HostPort) -> Token:
        """As `load`, and on loopback keys are made if there are none.

        Raises:
            KeysMissing: there are none, and others than this machine's users could connect.
        """
        try:
            return self.load()
        except KeysMissing as error:
            if not listen.is_loopback:
                raise KeysMissing(
                    f"listening on {listen} takes keys that the operator has made: {error}"
                ) from None
        from p2p.zmq_transport import new_key_pair

        cluster = self.cluster or keys.DEFAULT_CLUSTER
        return Token(keys.load_or_generate(self.path, cluster, new_key_pair))


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
