"""A peer that keeps registers and nothing else, as a process of the simulated world.

The disk of a node holds its disk id, and a vote for each key. A boot on an empty disk makes a new disk id, so
that the node comes back as another acceptor. ``perform`` keeps the contract of
``membership.register_effects``: a ``Save`` is written and synced before anything behind it happens, and the
world may crash the node between any two effects.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import get_args

from membership.register import AcceptorId
from membership.register_config import RegisterConfig
from membership.register_effects import RegisterEffect, RegisterEvent, Report, Save, SendTo
from membership.register_messages import RegisterMessage
from membership.registers import Registers
from membership.view import NodeId
from p2p.roles import Role
from p2p.wire import Envelope, Kind, WireFormat
from tools.simulation.node import Node
from tools.simulation.register_history import CLOSING

__all__ = [
    "RegisterCodec",
    "RegisterProcess",
    "closes",
    "disk_of",
    "is_led",
    "log_of",
    "payload_of",
    "registers_of",
]

VOTE = "vote "


def payload_of(log: tuple[str, ...]) -> bytes:
    """The payload that holds a log."""
    return " ".join(log).encode()


def log_of(payload: bytes) -> tuple[str, ...]:
    """The log that a payload holds."""
    return tuple(payload.decode().split())


def closes(payload: bytes) -> bool:
    """Whether a log is closed."""
    log = log_of(payload)
    return bool(log) and log[-1].startswith(CLOSING)


def is_led(key: str) -> bool:
    """Whether a key of this world has a leader: jobs do, locks do not."""
    return key.startswith("job")


def disk_of(node: Node) -> str | None:
    """The id of a node's disk; None while it has none."""
    disk = node.disk.durable.get("disk")
    return disk if isinstance(disk, str) else None


class RegisterProcess:
    """One life of a peer's registers."""

    def __init__(
        self,
        node: Node,
        now: float,
        *,
        config: RegisterConfig,
        rng: Random,
        machine: type[Registers],
        report: Callable[[Node, RegisterEvent], None],
        said: Callable[[Node, RegisterMessage], None],
    ) -> None:
        self._node = node
        self._said = said
        self._report = report
        disk = disk_of(node) or self._name_disk()
        saved = {
            name.removeprefix(VOTE): state
            for name, state in node.disk.durable.items()
            if name.startswith(VOTE) and isinstance(state, bytes)
        }
        self.registers = machine(
            me=AcceptorId(NodeId(node.name), disk),
            life=self.life,
            config=config,
            rng=rng,
            absorbs=lambda _key, payload: closes(payload),
            is_led=is_led,
            now=now,
            saved=saved,
        )

    @property
    def life(self) -> int:
        """What no other start of this node has."""
        return self._node.boots

    @property
    def new_disk(self) -> str:
        """The name of an empty disk."""
        return f"d{self._node.boots}"

    def _name_disk(self) -> str:
        disk = self.new_disk
        self._node.disk.write("disk", disk)
        self._node.disk.sync()
        return disk

    def start(self, now: float) -> list[RegisterEffect]:
        """See ``Process``."""
        return self.registers.tick(now)

    def receive(self, message: object, sender: str, now: float) -> list[RegisterEffect]:
        """See ``Process``."""
        return self.registers.receive(message, NodeId(sender), now)  # type: ignore[arg-type]  # as decoded

    def tick(self, now: float) -> list[RegisterEffect]:
        """See ``Process``."""
        return self.registers.tick(now)

    def next_deadline(self) -> float:
        """See ``Process``."""
        return self.registers.next_deadline()

    def lagged(self, lag_s: float, now: float) -> None:
        """See ``Process``; registers do not mind."""

    def perform(self, effect: object) -> None:
        """Send, write and sync, or tell."""
        match effect:
            case SendTo(to, message):
                self._node.send_to(address_of(to), message)
                self._said(self._node, message)
            case Save() as save:
                self.write(save)
                self._node.disk.sync()
            case Report(event):
                self._report(self._node, event)
            case _:
                raise AssertionError(f"registers returned {effect!r}")

    def write(self, save: Save) -> None:
        """Write a vote, without waiting for the disk."""
        self._node.disk.write(VOTE + save.key, save.state)


def registers_of(node: Node) -> Registers:
    """The machine of a node that is up."""
    assert isinstance(node.process, RegisterProcess)
    return node.process.registers


class RegisterCodec:
    """The real frames, of a table that holds the messages of registers only."""

    def __init__(self) -> None:
        kinds = [
            Kind(tag=tag, message=message, role=Role.PEER)
            for tag, message in enumerate(get_args(RegisterMessage), start=1)
        ]
        self._wire = WireFormat(kinds)

    def encode(self, message: object, sender: Node) -> bytes:
        """The frame that a peer would send."""
        return self._wire.encode(
            Envelope(
                cluster="simulated",
                ring_digest=b"",
                sender=NodeId(sender.name),
                incarnation=sender.boots,
                message=message,
            )
        )

    def decode(self, payload: object) -> tuple[object, str]:
        """The message, checked against its schema, and its sender."""
        assert isinstance(payload, bytes)
        envelope = self._wire.decode(payload)
        return envelope.message, envelope.sender

    def fingerprint(self, payload: object) -> bytes:
        """The frame itself."""
        assert isinstance(payload, bytes)
        return payload

    def describe(self, payload: object) -> str:
        """The message in the frame."""
        return repr(self.decode(payload)[0])


def address_of(node: NodeId) -> str:
    """Where a node of this world listens; none ever moves."""
    return f"10.0.0.{node.removeprefix('n')}:7000"
