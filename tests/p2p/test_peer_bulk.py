"""Who may bring outputs to a peer: other peers alone, whatever keys a client has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import xxhash

from p2p.roles import Role
from p2p.segments import WHOLE, Covers, pack_header
from tests.p2p.memory_swarm import KEYS, MemorySwarm

JOB = "0123456789abcdef0123456789abcdef"
OUTPUT = b"whatever a client likes"


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[MemorySwarm]:
    made = MemorySwarm(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("role", list(Role))
def test_outputs_are_taken_from_peers_alone_and_others_are_counted(swarm: MemorySwarm, role: Role) -> None:
    (node,) = swarm.start("a")
    rows = [(0, 1, WHOLE, 0, len(OUTPUT), 0, 0, 0)]
    covers = Covers(partitions=(), tasks=(0,), attempts=(1,))
    header = pack_header(JOB, 1, len(OUTPUT), xxhash.xxh3_128_digest(OUTPUT), rows, covers)
    # Who a transfer is from is what it says; what counts is whose key the connection has.
    head = msgpack.packb(["b", 1, 1, 0])
    end = swarm.network.open(KEYS.restricted_to(role), listen=False)
    assert end.send_bulk(node.end.bulk_address, (head, header, OUTPUT))
    swarm.run(0.2)
    is_peer = role is Role.PEER
    assert node.engine.store.holds(JOB, 1, 1) is is_peer
    assert any("not_allowed" in line for line in node.log) is not is_peer
