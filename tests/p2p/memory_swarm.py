"""Whole peers with their engines, on an in-memory network and a clock of their own; without processes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mapreduce.config import JobsConfig
from membership.config import LOCAL
from membership.register_config import LOCAL_REGISTER
from membership.swim import Swim
from membership.view import Member, NodeId
from p2p.addresses import BULK_PORT_META
from p2p.forwarding import send_chunk
from p2p.job_files import JobFiles
from p2p.job_service import JobService, OwnLimits
from p2p.keys import generate
from p2p.memory_transport import MemoryNetwork, MemoryTransport
from p2p.name_files import NameFiles
from p2p.peer import DRAIN_LIMIT_S, Peer
from p2p.protocol import wire_format
from p2p.roles import Role
from p2p.store import Store
from p2p.submissions import DISK_META
from p2p.votes import VoteStore
from p2p.wire import Envelope
from p2p.zmq_transport import new_key_pair

__all__ = ["Asker", "MemorySwarm"]

KEYS = generate("home", new_key_pair)
WIRE = wire_format()
STEP_S = 0.05


class Node:
    """A peer with its engine, its end of the network and its directory."""

    def __init__(self, peer: Peer, engine: JobService, end: MemoryTransport, log: list[str]) -> None:
        self.peer = peer
        self.engine = engine
        self.end = end
        self.log = log

    @property
    def id(self) -> NodeId:
        return self.peer.swim.me.id


class MemorySwarm:
    """Peers that are driven turn by turn; a second takes no time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = MemoryNetwork()
        self.now = 100.0
        self.nodes: dict[str, Node] = {}
        self._lives = 0

    def add(self, name: str, join: Sequence[str] = ()) -> Node:
        """Start a peer on its directory, which may hold what an earlier life left there."""
        self._lives += 1
        end = self.network.open(KEYS)
        node = NodeId(name)
        where = self.directory / name
        votes = VoteStore(str(where / "votes"))
        me = Member(
            node,
            end.address,
            session=self._lives,
            incarnation=self._lives,
            slots=1,
            meta=((BULK_PORT_META, end.bulk_address.rpartition(":")[2]), (DISK_META, votes.disk)),
        )
        swim = Swim(me=me, config=LOCAL, rng=random.Random(f"{name}{self._lives}"), seeds=join)
        log: list[str] = []

        engine = JobService(
            swim=swim,
            store=Store(str(where / "segments"), low_free_bytes=0, high_free_bytes=0),
            votes=votes,
            files=JobFiles(str(where / "jobs")),
            limits=OwnLimits(slots=1, memory_bytes=256 << 20),
            jobs=JobsConfig(),
            registers=LOCAL_REGISTER,
            send_chunk=partial(send_chunk, swim, end),
            log=log.append,
            now=self.now,
            wall=1e9 + self.now,
            names=NameFiles(str(where / "names")),
        )
        engine.warmth_is_wanted = False
        peer = Peer(
            cluster="home",
            swim=swim,
            transport=end,
            wire=WIRE,
            persist=lambda _incarnation, _session: None,
            log=log.append,
            engine=engine,
        )
        self.nodes[name] = Node(peer, engine, end, log)
        peer.start(self.now)
        return self.nodes[name]

    def start(self, *names: str) -> list[Node]:
        """Start peers that find each other."""
        first = self.add(names[0])
        for name in names[1:]:
            self.add(name, join=[first.peer.swim.me.address])
        assert self.run(10, self.agreed)
        return list(self.nodes.values())

    def crash(self, name: str, *, wipe: bool = False) -> None:
        """End a peer without a word; its directory stays, unless it is wiped."""
        node = self.nodes.pop(name)
        node.end.close()
        node.engine.runner.close()
        if wipe:
            shutil.rmtree(self.directory / name)

    def leave(self, name: str) -> None:
        """Have a peer leave in good order, and take its directory away."""
        peer = self.nodes[name].peer

        def has_left() -> bool:
            peer.leave(self.now)
            return peer.has_left

        assert self.run(2 * DRAIN_LIMIT_S, has_left)
        self.crash(name, wipe=True)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let so much time pass, or until something holds; returns whether it does."""
        end = self.now + seconds
        while self.now < end and not until():
            self.now += STEP_S
            for node in list(self.nodes.values()):
                node.peer.turn(self.now)
        return until()

    def agreed(self) -> bool:
        views = {
            frozenset(one.id for one in node.peer.swim.view.ring_members) for node in self.nodes.values()
        }
        return views == {frozenset(node.id for node in self.nodes.values())}

    def close(self) -> None:
        for node in self.nodes.values():
            node.engine.close()


class Asker:
    """A client of such a swarm."""

    def __init__(self, swarm: MemorySwarm) -> None:
        self.swarm = swarm
        self.end = swarm.network.open(KEYS.restricted_to(Role.SUBMIT), listen=False)

    def say(self, node: Node, message: Any) -> None:
        envelope = Envelope(
            cluster="home", ring_digest=b"", sender=NodeId("client"), incarnation=0, message=message
        )
        self.end.send(node.peer.swim.me.address, WIRE.encode(envelope))

    def ask(self, node: Node, message: Any, seconds: float = 10.0) -> Any:
        """Ask, and return the first answer."""
        found: list[Any] = []
        self.say(node, message)
        self.swarm.run(seconds, lambda: bool(found) or bool(found.extend(self.heard()) or found))
        return found[0]

    def heard(self) -> list[Any]:
        return [WIRE.decode(arrival.frame).message for arrival in self.end.receive(100)]
