"""The same input gives the same effects, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import membership.messages
from membership.messages import Message
from tests.membership.cluster import Cluster

ROOT = Path(__file__).parents[2]

STORY = """
from hashlib import blake2b
from tests.membership.test_determinism import story
print(blake2b(repr(story(1)).encode()).hexdigest())
"""


def story(seed: int) -> list[object]:
    """Everything sent and announced in a life with joins, deaths, losses and a leave."""
    cluster = Cluster(7, seed=seed, loss=0.1)
    cluster.run(2)
    cluster.kill(6)
    cluster.run(10)
    cluster.restart(6, address="10.9.9.9:7000", seeds=[cluster.hosts[cluster[0].me.id].address])
    cluster.pause(3)
    cluster.run(5)
    cluster.resume(3)
    host = cluster.hosts[cluster[5].me.id]
    cluster.perform(host, host.swim.leave(cluster.now))
    cluster.run(20)
    return [cluster.log, cluster.events, [swim.view for swim in cluster.alive()]]


def test_the_same_seed_tells_the_same_story_and_another_seed_another_one() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)


def test_the_story_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", STORY],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(digests) == 1


def test_every_message_is_a_frozen_value() -> None:
    for kind in Message.__args__:
        assert kind.__dataclass_params__.frozen
        assert kind.__name__ in membership.messages.__all__
        assert all(field.kw_only for field in fields(kind))
