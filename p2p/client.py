"""Asking peers questions: a small synchronous client.

It connects with the keys it has, tries the addresses in turn until one answers, and stays with that one.
When that one dies, the next question goes to another.  A peer that answers "no" ends the matter: another
would say the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from membership.view import NodeId
from p2p.addresses import parse_address, resolve
from p2p.client_protocol import Topic, client_wire_format
from p2p.cut_transport import cuttable
from p2p.errors import NameNotResolved, NoPeerReached, RequestRefused, WireError
from p2p.gate import Gate
from p2p.keys import KeySet
from p2p.questions import Refused
from p2p.roles import Role
from p2p.transport import LinkFailed
from p2p.wire import Envelope
from p2p.zmq_transport import ZmqTransport

if TYPE_CHECKING:
    from p2p.ring_questions import Happened

__all__ = ["Client"]

DEFAULT_TIMEOUT_S = 3.0  # for each address
LEASE_S = 10.0
RENEWAL_S = 3.0
ANSWERS_PER_TURN = 256
LONGEST_WAIT_S = 0.25

AnswerT = TypeVar("AnswerT")


class Client:
    """Talks to one peer at a time.  Use it as a context manager.

    Args:
        keys: the cluster's keys, as far as they are known here.
        addresses: peers to try, in this order.
        timeout_s: how long to wait for each of them.

    Raises:
        BadAddress: one of them is no address.
        NameNotResolved: none of the names resolves.
    """

    topics: frozenset[Topic] = frozenset({"ring"})  # what it can ask about

    def __init__(
        self, keys: KeySet, addresses: Sequence[str], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self.keys = keys
        self._addresses, self._unresolved = _resolved(addresses)
        self._failed: dict[str, str] = {}  # in the present question, and why
        self._timeout_s = timeout_s
        self._cluster = keys.cluster
        self._wire = client_wire_format(self.topics)
        self._gate = Gate(self._wire, keys.cluster)
        # As the module `secrets` does it, which imports much more.
        self._name = NodeId(f"client-{os.urandom(6).hex()}")
        self._number = 0
        self._transport = cuttable(ZmqTransport(keys))

    @property
    def addresses(self) -> tuple[str, ...]:
        """The peers that are known, the one that is talked to first."""
        return tuple(self._addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def ask(self, question: Any, answer_type: type[AnswerT]) -> AnswerT:
        """The answer of the first peer that gives one.

        Args:
            question: a message of `p2p.questions` with a field `number`, which is filled in here.
            answer_type: the type of its answer.

        Raises:
            NoPeerReached: none answered; the text says why for each.
            RequestRefused: one answered that it will not.
        """
        question = self._numbered(question)
        self._failed = dict(self._unresolved)
        for address in list(self._addresses):
            deadline = time.monotonic() + self._timeout_s
            self._send(address, question)
            while (left_s := deadline - time.monotonic()) > 0 and address not in self._failed:
                for message in self._arrived(left_s):
                    if type(message) is answer_type and getattr(message, "number", None) == question.number:
                        return message
            self._turn_away(address, f"no answer within {self._timeout_s:g} s")
        reasons = "; ".join(f"{address}: {reason}" for address, reason in self._failed.items())
        raise NoPeerReached(f"no peer reached ({reasons})")

    def watch(self) -> Iterator[Happened]:
        """Membership events of one peer from now on, without end; of another one when that peer falls silent.

        The first event of each peer is named ``watching``.

        Raises: as `ask`.
        """
        from p2p.ring_questions import Happened, Watch

        while True:
            yield self.ask(Watch(number=0, lease_s=LEASE_S), Happened)
            address = self._addresses[0]
            question = Watch(number=self._number, lease_s=LEASE_S)
            heard_at = renewed_at = time.monotonic()
            while (now := time.monotonic()) - heard_at < RENEWAL_S + self._timeout_s:
                if now - renewed_at >= RENEWAL_S:
                    renewed_at = now
                    self._send(address, question)
                for message in self._arrived(RENEWAL_S):
                    if isinstance(message, Happened) and message.number == question.number:
                        heard_at = time.monotonic()
                        if message.event != "watching":
                            yield message
            self._turn_away(address, "fell silent")

    def _numbered(self, question: Any) -> Any:
        self._number += 1
        return replace(question, number=self._number)

    def _send(self, address: str, message: Any) -> None:
        envelope = Envelope(
            cluster=self._cluster, ring_digest=b"", sender=self._name, incarnation=0, message=message
        )
        self._transport.send(address, self._wire.encode(envelope))

    def _arrived(self, timeout_s: float) -> list[Any]:
        """Wait a little, and return the messages that have come."""
        self._transport.wait(min(timeout_s, LONGEST_WAIT_S))
        messages: list[Any] = []
        for arrival in self._transport.receive(ANSWERS_PER_TURN):
            try:
                message = self._gate.admit(arrival.frame, Role.PEER).message
            except WireError as error:
                raise RequestRefused(f"{arrival.remote}: {error}") from None
            if isinstance(message, Refused):
                raise RequestRefused(f"{arrival.remote} refuses: {message.text}")
            messages.append(message)
        for notice in self._transport.take_notices():
            if isinstance(notice, LinkFailed):
                self._turn_away(notice.address, notice.reason)
        return messages

    def _turn_away(self, address: str, reason: str) -> None:
        """Put an address behind the others: it failed now, and may be back when they have failed, too."""
        if address in self._addresses and address not in self._failed:
            self._transport.forget(address)
            self._failed[address] = reason
            self._addresses.remove(address)
            self._addresses.append(address)


def _resolved(addresses: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    found: list[str] = []
    reasons: dict[str, str] = {}
    for text in addresses:
        address = parse_address(text)
        try:
            found.append(str(resolve(address)))
        except NameNotResolved as error:
            if len(addresses) == 1:
                raise
            reasons[text] = str(error)
    return list(dict.fromkeys(found)), reasons
