"""The interface from Python: what is no job, no input or no number of peers is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from mapreduce.job import Job
from p2p.handles import SwarmResult
from p2p.keys import generate, store
from p2p.local_swarm import LocalSwarm
from p2p.swarm_client import Swarm
from p2p.zmq_transport import new_key_pair

JOB = Job(lambda line: [(line, 1)], lambda key, values: [(key, sum(values))])


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Swarm:
    """Return a swarm whose peers must not be asked."""

    def refuse(_swarm: Swarm) -> Any:
        raise AssertionError("no peer is to be asked")

    monkeypatch.setattr(Swarm, "client", refuse)
    store(generate("default", new_key_pair), tmp_path)
    return Swarm("127.0.0.1:1", keys=tmp_path)


@pytest.mark.parametrize("job", ["count.py", None])
def test_what_is_no_job_is_named(swarm: Swarm, job: Any) -> None:
    with pytest.raises(TypeError, match="job: expected a Job, got"):
        swarm.submit(job, "books")


@pytest.mark.parametrize("inputs", [3, None, b"books", {"books": 1}, ["books", 3]])
def test_what_is_no_input_is_named(swarm: Swarm, inputs: Any) -> None:
    with pytest.raises(TypeError, match="inputs: expected"):
        swarm.submit(JOB, inputs)


@pytest.mark.parametrize(
    ("peers", "error"), [(0, ValueError), (-1, ValueError), ("x", TypeError), (True, TypeError)]
)
def test_what_is_no_number_of_peers_is_named(peers: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="peers: expected"):
        LocalSwarm(peers=peers)


def test_a_file_is_put_under_a_name(swarm: Swarm) -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="name: expected what the file shall be called, got None"):
        swarm.put("books", nothing)


def test_a_result_may_be_used_in_a_with_block() -> None:
    client, view = MagicMock(), MagicMock(counters={"words": 3})
    result = SwarmResult(client, view, None)
    with result as entered:
        assert entered is result
        assert entered.counters == {"words": 3}
    client.close.assert_not_called()  # it is the handle's, and may give another result
