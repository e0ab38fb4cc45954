"""A child's questions about locks, and their answers behind orders that came first."""

from __future__ import annotations

import os
import pickle
import struct
import threading
from io import BytesIO
from typing import Any

import pytest

from mapreduce.errors import EnvironmentFailed
from mapreduce.order_stream import OrderStream
from mapreduce.orders import LockAnswer, ReduceOrder, TaskLock, unpack_report

ORDER = ReduceOrder(task=3, attempt=9, runs=(), out_path="out")
OTHER = ReduceOrder(task=4, attempt=10, runs=(), out_path="out")


def stream_of(*messages: Any, said: list[TaskLock] | None = None) -> OrderStream:
    whole = BytesIO(b"".join([packed(message) for message in messages]))

    def say(report: bytes) -> None:
        told = unpack_report(report)
        assert isinstance(told, TaskLock)
        if said is not None:
            said.append(told)

    return OrderStream(whole, say)


def test_orders_come_in_turn_and_then_nothing() -> None:
    stream = stream_of(ORDER, OTHER)
    assert [stream.next(), stream.next(), stream.next()] == [ORDER, OTHER, None]


def test_an_answer_overtakes_the_orders_that_were_sent_before_it() -> None:
    said: list[TaskLock] = []
    stream = stream_of(ORDER, OTHER, LockAnswer(ticket=1, token=8), said=said)
    assert stream.next() == ORDER
    with stream.lock(ORDER, "name") as token:
        assert token == 8
        assert [(one.task, one.attempt, one.ticket, one.name, one.is_wanted) for one in said] == [
            (3, 9, 1, "name", True)
        ]
    assert (said[-1].ticket, said[-1].is_wanted) == (1, False)
    assert stream.next() == OTHER


def test_a_lock_that_is_not_to_be_had_fails_the_task_with_the_reason() -> None:
    stream = stream_of(LockAnswer(ticket=1, reason="waited 600 s for the lock 'name'"))
    with pytest.raises(EnvironmentFailed, match="waited 600 s"), stream.lock(ORDER, "name"):
        raise AssertionError("nobody holds it")


def test_locks_within_locks_have_claims_of_their_own() -> None:
    stream = stream_of(LockAnswer(ticket=1, token=1), LockAnswer(ticket=2, token=2), OTHER)
    with stream.lock(ORDER, "outer") as outer, stream.lock(ORDER, "inner") as inner:
        assert (outer, inner) == (1, 2)
    assert stream.next() == OTHER


def test_the_end_of_the_parent_ends_the_waiting() -> None:
    stream = stream_of()
    with pytest.raises(EnvironmentFailed, match="the task is over"), stream.lock(ORDER, "name"):
        raise AssertionError("nobody gave it")


def packed(message: Any) -> bytes:
    data = pickle.dumps(message)
    return struct.pack("<I", len(data)) + data


def test_threads_of_user_code_each_get_their_own_answer() -> None:
    read, write = os.pipe()
    asked: dict[int, str] = {}

    def say(report: bytes) -> None:
        told = unpack_report(report)
        assert isinstance(told, TaskLock)
        if told.is_wanted:
            asked[told.ticket] = told.name
        if told.is_wanted and len(asked) == 3:  # the last who asks is answered first
            for ticket in sorted(asked, reverse=True):
                os.write(write, packed(LockAnswer(ticket=ticket, token=10 + ticket)))
            os.write(write, packed(OTHER))

    with os.fdopen(read, "rb") as parent:
        stream = OrderStream(parent, say)
        got: dict[str, int] = {}

        def ask(name: str) -> None:
            with stream.lock(ORDER, name) as token:
                got[name] = token

        threads = [threading.Thread(target=ask, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)
        assert got == {name: 10 + ticket for ticket, name in asked.items()}
        assert stream.next() == OTHER
        os.close(write)
