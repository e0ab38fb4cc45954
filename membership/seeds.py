"""The addresses that we join through, and knock at for ever.

A seed is only an address until somebody answers there. From then on it counts as answered for as long as that
node is in the ring; when it dies, the address is tried again, as it may be the only bridge to another island.
A seed that was never heard is announced once and tried on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from membership.view import NodeId

__all__ = ["Seed", "Seeds"]


@dataclass(slots=True)
class Seed:
    """One address.

    Attributes:
        address: "host:port".
        number: of the last SyncRequest sent there; -1 if none was.
        node: who answered there last.
        announced: whether its silence was announced.
    """

    address: str
    number: int = -1
    node: NodeId | None = None
    announced: bool = False


class Seeds:
    """All seeds of a peer, in the order given, each once."""

    __slots__ = ("_seeds",)

    def __init__(self, addresses: Sequence[str]) -> None:
        self._seeds = [Seed(address) for address in dict.fromkeys(addresses)]

    def __len__(self) -> int:
        return len(self._seeds)

    def answered(self, number: int, node: NodeId) -> None:
        """Note that `node` answered the request with this number, if it went to a seed."""
        for seed in self._seeds:
            if seed.number == number:
                seed.node = node

    def heard_from(self, address: str, node: NodeId) -> None:
        """Note that `node` speaks from this address, if it is a seed's."""
        for seed in self._seeds:
            if seed.address == address:
                seed.node = node

    def silent(self, is_here: Callable[[NodeId], bool]) -> list[Seed]:
        """Return the seeds where nobody is known to be, given who is here."""
        return [seed for seed in self._seeds if seed.node is None or not is_here(seed.node)]
