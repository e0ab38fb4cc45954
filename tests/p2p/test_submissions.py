"""Submissions: who must have answered before a job is born."""

from __future__ import annotations

from typing import cast

import pytest

from mapreduce.spec import JobPlan
from membership.view import Member, NodeId, View
from p2p.job_inquiries import Vetted
from p2p.submissions import DISK_META, UNABLE, VET_LIMIT_S, Begun, Submissions
from p2p.transport import Connection

JOB = "0123456789abcdef"
NODES = tuple(NodeId(name) for name in ("a", "b", "c", "d"))


class Plan:
    """As much of a plan as a submission looks at."""

    replicas = 2
    strict_replicas = False


VIEW = View.of(
    Member(node, f"127.0.0.1:{1 + place}", meta=((DISK_META, "disk"),)) for place, node in enumerate(NODES)
)


@pytest.fixture
def submissions() -> Submissions:
    made = Submissions()
    client = (cast(Connection, object()), 7)
    assert made.begin(JOB, "digest", cast(JobPlan, Plan()), client, NODES, 0.0) is None
    return made


def vetted(reason: str = "", text: str = "") -> Vetted:
    return Vetted(number=0, job=JOB, reason=reason, text=text)


def test_the_group_is_told_when_all_have_answered(submissions: Submissions) -> None:
    for node in NODES:
        assert submissions.due(VIEW, 1.0) == []
        submissions.on_vetted(vetted(), node)
    (answered,) = submissions.due(VIEW, 1.0)
    assert answered.answer.reason == "group"
    assert len(answered.answer.group) == 3


def test_a_few_who_say_nothing_are_left_out(submissions: Submissions) -> None:
    for node in NODES[:3]:
        submissions.on_vetted(vetted(), node)
    (answered,) = submissions.due(VIEW, VET_LIMIT_S)
    assert {member.node for member in answered.answer.group} == set(NODES[:3])


def test_a_peer_with_trouble_of_its_own_is_left_out_and_named_and_the_job_is_not_refused(
    submissions: Submissions,
) -> None:
    for node in NODES[:3]:
        submissions.on_vetted(vetted(), node)
    submissions.on_vetted(vetted(UNABLE, "the job's spec did not come: nobody has it"), NODES[3])
    (answered,) = submissions.due(VIEW, 1.0)
    assert answered.answer.reason == "group"
    assert {member.node for member in answered.answer.group} == set(NODES[:3])
    assert answered.answer.warnings == (
        "peer d is left out of the job's start: the job's spec did not come: nobody has it",
    )


def test_a_peer_that_most_others_do_not_answer_begins_nothing(submissions: Submissions) -> None:
    # It slept, and its time for answers was over when it woke; meanwhile another peer had begun the job.
    for node in NODES[:2]:
        submissions.on_vetted(vetted(), node)
    (born,) = submissions.due(VIEW, VET_LIMIT_S)
    assert born.answer.reason == "quorum"
    assert "2 of 4" in born.answer.text


def test_the_dead_need_not_answer(submissions: Submissions) -> None:
    for node in NODES[2:]:
        submissions.peer_is_gone(node)
    submissions.on_vetted(vetted(), NODES[0])
    submissions.on_vetted(vetted(), NODES[1])
    assert submissions.due(VIEW, 1.0)[0].answer.reason == "group"


def test_a_job_that_somebody_keeps_is_not_begun_again(submissions: Submissions) -> None:
    for node in NODES[:3]:
        submissions.on_vetted(vetted(), node)
    submissions.on_vetted(vetted("known", "b c d"), NODES[3])
    (born,) = submissions.due(VIEW, 1.0)
    assert (born.answer.reason, born.answer.members) == ("", ("b", "c", "d"))


def test_nothing_begins_before_the_client_has_fixed_the_group(submissions: Submissions) -> None:
    # Two peers that took one submission in turn may have different views; the client names one group to both.
    for node in NODES:
        submissions.on_vetted(vetted(), node)
    (answered,) = submissions.due(VIEW, 1.0)
    assert submissions.get(JOB) is None
    elsewhere = Submissions()
    client = (cast(Connection, object()), 8)
    plan = cast(JobPlan, Plan())
    begun = elsewhere.begin_birth(JOB, "digest", plan, client, answered.answer.group, 2.0)
    assert begun == Begun(JOB, "digest", answered.answer.group)
    (born,) = elsewhere.founded(JOB, answered.answer.group)
    assert (born.answer.reason, len(born.answer.members)) == ("", 3)


def test_a_birth_that_finds_no_majority_is_told(submissions: Submissions) -> None:
    for node in NODES:
        submissions.on_vetted(vetted(), node)
    (answered,) = submissions.due(VIEW, 1.0)
    client = (cast(Connection, object()), 8)
    submissions.begin_birth(JOB, "digest", cast(JobPlan, Plan()), client, answered.answer.group, 2.0)
    assert submissions.due(VIEW, 2.0) == []
    (told,) = submissions.due(VIEW, submissions.next_deadline())
    assert told.answer.reason == "quorum"
