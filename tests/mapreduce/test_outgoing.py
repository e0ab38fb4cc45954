"""What a worker pushes: outputs that wait for their places, and that are still its to push."""

from __future__ import annotations

from itertools import count

from mapreduce.config import JobsConfig
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
