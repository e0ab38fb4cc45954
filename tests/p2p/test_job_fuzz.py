"""A member that says nonsense about jobs in well-formed messages: the engine must not fall over."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mapreduce.config import JobsConfig
from membership.config import LOCAL
from membership.register_config import LOCAL_REGISTER
from membership.swim import Swim
from membership.view import Member, NodeId
from p2p.errors import MalformedFrame, OversizedFrame
from p2p.file_questions import FILE_KINDS
from p2p.job_files import JobFiles
from p2p.job_inquiries import INQUIRY_KINDS
from p2p.job_protocol import JOB_KINDS
from p2p.job_questions import QUESTION_KINDS
from p2p.job_service import JobService, OwnLimits
from p2p.protocol import wire_format
from p2p.register_protocol import REGISTER_KINDS
from p2p.result_questions import RESULT_KINDS
from p2p.roles import Role
from p2p.service import Origin
from p2p.store import Store
from p2p.transport import Connection
from p2p.votes import VoteStore
from p2p.wire import Envelope
from tests.p2p.nonsense import messages

WIRE = wire_format()
MESSAGES = messages(
    (*REGISTER_KINDS, *JOB_KINDS, *QUESTION_KINDS, *INQUIRY_KINDS, *FILE_KINDS, *RESULT_KINDS)
)


class Somewhere(Connection):
    """Where answers go: nowhere."""


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(st.lists(st.tuples(MESSAGES, st.sampled_from([0.0, 0.1, 3.0])), max_size=25))
def test_whatever_is_said_about_jobs_the_engine_goes_on(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[Any, float]]
) -> None:
    directory: Path = tmp_path_factory.mktemp("peer")
    now = 100.0
    swim = Swim(me=Member(NodeId("a"), "memory:1"), config=LOCAL, rng=random.Random(1), seeds=[])
    swim.start(now)
    engine = JobService(
        swim=swim,
        store=Store(str(directory / "segments"), low_free_bytes=0, high_free_bytes=0),
        votes=VoteStore(str(directory / "votes")),
        files=JobFiles(str(directory / "jobs")),
        limits=OwnLimits(slots=1, memory_bytes=256 << 20),
        jobs=JobsConfig(),
        registers=LOCAL_REGISTER,
        send_chunk=lambda _to, _parts: True,
        log=lambda _text: None,
        now=now,
        wall=1e9,
    )
    engine.warmth_is_wanted = False
    try:
        engine.start(now)
        for message, pause_s in said:
            try:
                frame = WIRE.encode(
                    Envelope(
                        cluster="home",
                        ring_digest=b"",
                        sender=NodeId("b"),
                        incarnation=1,
                        message=message,
                    )
                )
                heard = WIRE.decode(frame).message
            except (MalformedFrame, OversizedFrame):
                continue
            now += pause_s
            engine.receive(heard, Origin(NodeId("b"), 1, Role.PEER, Somewhere()), now)
            engine.pump((), now)
            engine.tick(now)
            assert engine.next_deadline() > 0
    finally:
        engine.close()
