"""What a child hears from its parent: orders one after another, and in between what it asked for.

The parent sends orders ahead of time, so the answer to a question of the running task stands behind orders
that come later. Whoever waits for something reads; what is not for it is put aside for whom it is for. So
user code may ask for locks in any of its threads.

⚙ Reads the socket to the parent.
"""

from __future__ import annotations

import pickle
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from mapreduce.errors import EnvironmentFailed
from mapreduce.orders import LockAnswer, Order, TaskLock, pack_report

__all__ = ["OrderStream"]

_LENGTH = struct.Struct("<I")


class OrderStream:
    """The parent's messages.

    Args:
        stream: length-prefixed pickles.
        say: sends a report.
    """

    def __init__(self, stream: BinaryIO, say: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._say = say
        self._gate = threading.Condition()
        self._is_reading = False
        self._ended = False
        self._ahead: deque[Any] = deque()
        self._answers: dict[int, LockAnswer | None] = {}  # by ticket; None: not here yet
        self._ticket = 0

    def next(self) -> Any:
        """Return the next message that is no answer, None at the end; questions still open are over."""
        with self._gate:
            self._answers.clear()
            self._gate.notify_all()
        return self._wait(lambda: self._ahead.popleft() if self._ahead else None)

    @contextmanager
    def lock(self, order: Order, name: str) -> Iterator[int]:
        """Hold a named lock for the task of this order; gives the token.

        Raises:
            EnvironmentFailed: it was not to be had.
        """
        with self._gate:
            self._ticket += 1
            ticket = self._ticket
            self._answers[ticket] = None
        claim = TaskLock(task=order.task, attempt=order.attempt, ticket=ticket, name=name)
        self._say(pack_report(claim))
        try:
            answer = self._wait(lambda: self._answer(ticket))
            if answer is None or answer.reason:
                raise EnvironmentFailed(answer.reason if answer else f"no lock {name!r}: the task is over")
            yield answer.token
        finally:
            with self._gate:
                self._answers.pop(ticket, None)
            claim.is_wanted = False
            self._say(pack_report(claim))

    def _answer(self, ticket: int) -> LockAnswer | None:
        if ticket not in self._answers:
            return LockAnswer(ticket=ticket, reason="the task that asked for a lock is over")
        return self._answers[ticket]

    def _wait(self, find: Callable[[], Any]) -> Any:
        """Read until something is found; None at the end."""
        while True:
            with self._gate:
                while (found := find()) is None and self._is_reading:
                    self._gate.wait()
                if found is not None or self._ended:
                    return found
                self._is_reading = True
            message = None
            try:
                message = self._read()
            finally:
                with self._gate:
                    self._is_reading = False
                    self._file(message)
                    self._gate.notify_all()

    def _read(self) -> Any:
        head = self._stream.read(_LENGTH.size)
        return pickle.loads(self._stream.read(_LENGTH.unpack(head)[0])) if head else None

    def _file(self, message: Any) -> None:
        if message is None:
            self._ended = True
        elif not isinstance(message, LockAnswer):
            self._ahead.append(message)
        elif message.ticket in self._answers:
            self._answers[message.ticket] = message
