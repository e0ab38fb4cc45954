"""What a worker pushes: outputs that wait for their places, and that are still its to push."""

from __future__ import annotations

from itertools import count

from mapreduce.config import JobsConfig
from mapreduce.messages import MAX_TRANSFER_ROWS, most_attempts
from mapreduce.outgoing import Outgoing
from membership.view import NodeId

PLACE = NodeId("place")
CONFIG = JobsConfig()


def test_outputs_for_one_place_go_together() -> None:
    outgoing = Outgoing(CONFIG, count(1))
    outgoing.add(PLACE, (0, 2), 5, 50, 0.0, at_once=False)
    outgoing.add(PLACE, (0, 2), 6, 60, 0.0, at_once=False)
    assert outgoing.flush(0, 0.0, {50, 60}) == []
    [push] = outgoing.flush(0, CONFIG.push_window_s, {50, 60})
    assert (push.to, push.group.partitions, push.group.attempts) == (PLACE, (0, 2), (50, 60))


def test_an_output_that_was_settled_while_it_waited_is_not_pushed() -> None:
    """It is not here any more; a push that names it would say that there is nothing in it."""
    outgoing = Outgoing(CONFIG, count(1))
    outgoing.again(PLACE, (1,), [(5, 50), (6, 60)], 0.0)
    [push] = outgoing.flush(0, CONFIG.push_retry_s, {60})
    assert push.group.attempts == (60,)
    outgoing.again(PLACE, (1,), [(5, 50)], 1.0)
    assert outgoing.flush(0, 1.0 + CONFIG.push_retry_s, {60}) == []


def test_a_push_of_many_partitions_carries_few_attempts() -> None:
    """What lists them all has to fit into one message; each is pushed all the same."""
    outgoing = Outgoing(CONFIG, count(1))
    partitions = tuple(range(600))
    for attempt in range(1, 257):
        outgoing.add(PLACE, partitions, attempt, attempt, 0.0, at_once=True)
    pushes = outgoing.flush(0, 0.0, range(1, 257))
    assert all(len(push.group.attempts) * len(partitions) <= MAX_TRANSFER_ROWS for push in pushes)
    assert [attempt for push in pushes for attempt in push.group.attempts] == list(range(1, 257))


def test_a_push_carries_an_attempt_however_many_partitions_it_has() -> None:
    assert most_attempts(256, MAX_TRANSFER_ROWS + 1) == 1
    assert most_attempts(256, 0) == 256
