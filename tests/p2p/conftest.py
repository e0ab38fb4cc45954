"""Real peers for tests, in processes of their own, and what it takes to talk to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2p.key_source import KeySource
from p2p.swarm import LocalPeers
from tools.measure_membership import Watchtower

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def keys_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the keys of a module's peers lie."""
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def local(keys_directory: Path) -> Iterator[LocalPeers]:
    """Three peers that know each other; a test that ends one starts another."""
    with LocalPeers(options=["--keys", str(keys_directory)], quiet=True) as peers:
        peers.start(3)
        yield peers


@pytest.fixture
def tower(local: LocalPeers, keys_directory: Path) -> Iterator[Watchtower]:
    """Hears the events of all peers from now on, once they agree on who is here."""
    watching = Watchtower(KeySource(directory=keys_directory).load().keys, list(local.peers))
    try:
        watching.await_agreement(10.0)
        watching.watch_all()
        yield watching
    finally:
        watching.close()


@pytest.fixture(scope="module")
def ringreduce(keys_directory: Path) -> Run:
    """Runs the command in a process of its own, with the module's keys."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RINGREDUCE_")}
        environment |= {"RINGREDUCE_KEYS": str(keys_directory), **more}
        return subprocess.run(
            [sys.executable, "-m", "p2p.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            env=environment,
            check=False,
        )

    return run
