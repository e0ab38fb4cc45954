"""What a network between peers must be able to do for faults: cut, slow down and break single directions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.chaos.cluster import Cluster
    from tools.chaos.faults import Place

__all__ = ["Links"]


class Links(ABC):
    """Surroundings (`tools.chaos.faults.Surroundings`) whose links can be hurt.

    Peers are named by their numbers in the cluster.  Clients reach every peer at all times.
    """

    name: str

    @abstractmethod
    def place(self, number: int) -> Place:
        """See `Surroundings.place`."""

    @abstractmethod
    def client_prefix(self) -> tuple[str, ...]:
        """See `Surroundings.client_prefix`."""

    @abstractmethod
    def close(self) -> None:
        """See `Surroundings.close`."""

    def meet(self, cluster: Cluster) -> None:  # noqa: B027 - most need not know
        """Learn which cluster lives here; called before each injury."""

    @abstractmethod
    def block(self, source: int, target: int) -> None:
        """Let nothing pass from one peer to another, silently; the way back stays as it is."""

    @abstractmethod
    def unblock(self, source: int, target: int) -> None:
        """Let it pass again; harmless when it does."""

    @abstractmethod
    def slow(self, number: int, bytes_per_s: int) -> None:
        """Let no more than so much pass to and from a peer; 0: as much as there is."""

    def delay(self, number: int, seconds: float) -> None:
        """Let all that comes from a peer, or goes to it, take so much longer.

        Raises:
            NotImplementedError: these links cannot.
        """
        raise NotImplementedError(f"{self.name} cannot delay")

    def reset(self, number: int) -> None:
        """Break all connections of a peer, as a router does that has lost its table.

        Raises:
            NotImplementedError: these links cannot.
        """
        raise NotImplementedError(f"{self.name} cannot reset")
