"""A peer as a process: keys, directory, sockets, signals, and the loop between them.

The order matters.  The directory's lock comes first, so that a second peer changes nothing; then the
keys; then the inboxes, which are bound and have passed their self-test; then our identity is raised on
disk; and only then does anybody hear of us, and stdout says `ready`.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from mapreduce.config import JobsConfig
from mapreduce.local import MEMORY_SHARE, MIN_MEMORY_BYTES, available_memory_bytes
from membership.config import LOCAL
from membership.register_config import LAN_REGISTER, LOCAL_REGISTER
from membership.swim import Swim
from membership.view import Member
from p2p.addresses import BULK_PORT_META, parse_address, resolve
from p2p.config import PeerConfig
from p2p.cut_transport import cuttable
from p2p.datadir import DataDirectory, Identity
from p2p.errors import DataDirectoryUnusable
from p2p.forwarding import send_chunk
from p2p.job_files import JobFiles
from p2p.job_protocol import MAX_RECORD_BYTES
from p2p.job_service import JobService, OwnLimits
from p2p.name_files import NameFiles
from p2p.peer import Peer
from p2p.process import (
    LogStream,
    Wakeup,
    keep_freed_memory,
    kill_with_parent,
    raise_descriptor_limit,
    stop_signals,
)
from p2p.protocol import wire_format
from p2p.store import Store
from p2p.submissions import DISK_META
from p2p.transport import Transport
from p2p.votes import VoteStore
from p2p.zmq_transport import ZmqTransport

__all__ = ["run_peer"]

INTERRUPTED = 130  # as a shell says of a command that Ctrl-C has ended


def run_peer(config: PeerConfig, *, lifeline: int | None = None, die_with_parent: bool = False) -> int:
    """Run a peer until it is told to stop.

    Args:
        config: what it is told.
        lifeline: a descriptor that reads as ended when the process that started us is gone; then we stop.
        die_with_parent: have the kernel kill us when the thread that started us ends.

    Returns:
        The exit code.

    Raises:
        PeerError: it could not start, or may not go on; one line says why.
    """
    if die_with_parent:
        kill_with_parent()
    if lifeline is not None and _has_ended(lifeline):  # perhaps it ended before the line above
        return 0
    raise_descriptor_limit()
    keep_freed_memory()
    received: list[int] = []
    with contextlib.ExitStack() as stack:
        wakeup = Wakeup()
        stack.callback(wakeup.close)
        stack.enter_context(stop_signals(received))
        stack.enter_context(wakeup.on_signals())
        directory = stack.enter_context(DataDirectory(config.data))
        token = config.keys.load_to_serve(config.listen)
        transport = cuttable(
            ZmqTransport(
                token.keys, listen=config.listen, bulk_port=config.bulk_port, advertise=config.advertise
            )
        )
        stack.callback(transport.close)
        transport.watch(wakeup.fileno())
        if lifeline is not None:
            transport.watch(lifeline)
        identity = directory.begin_life(time.time_ns() // 1_000_000)
        log = LogStream(identity.id[:8])
        try:
            votes = VoteStore(str(directory.path / "votes"))
            swim = _swim(config, identity, transport, token.addresses, votes.disk)
            jobs = _jobs(config, directory.path, swim, votes, transport, log)
        except OSError as error:
            raise DataDirectoryUnusable(
                f"data directory {directory.path}: {error.strerror or error}"
            ) from None
        stack.callback(jobs.close)
        transport.watch(jobs.fileno())
        peer = Peer(
            cluster=token.keys.cluster,
            swim=swim,
            transport=transport,
            wire=wire_format(),
            engine=jobs,
            persist=lambda incarnation, session: _remember(
                directory, Identity(identity.id, incarnation, session), log
            ),
            log=log,
        )
        peer.start(time.monotonic())
        # Whoever started us may have stopped listening; that is no reason to stop.
        with contextlib.suppress(OSError):
            print(f"ready {transport.address} {identity.id}", flush=True)

        def wanted() -> bool:
            wakeup.drain()
            return not received and (lifeline is None or not _has_ended(lifeline))

        peer.run(time.monotonic, wanted)
    return INTERRUPTED if signal.SIGINT in received else 0


def _jobs(
    config: PeerConfig,
    directory: Path,
    swim: Swim,
    votes: VoteStore,
    transport: Transport,
    log: LogStream,
) -> JobService:
    registers = LOCAL_REGISTER if config.swim is LOCAL else LAN_REGISTER
    memory_bytes = int(available_memory_bytes() * MEMORY_SHARE) // config.slots
    return JobService(
        swim=swim,
        store=Store(str(directory / "segments")),
        votes=votes,
        files=JobFiles(str(directory / "jobs")),
        limits=OwnLimits(slots=config.slots, memory_bytes=max(MIN_MEMORY_BYTES, memory_bytes)),
        jobs=JobsConfig(),
        # A leader gathers what it commits; what comes while a round is under way goes with the next anyway.
        registers=replace(registers, payload_bytes_max=MAX_RECORD_BYTES, batch_s=0.0),
        send_chunk=partial(send_chunk, swim, transport),
        log=log,
        now=time.monotonic(),
        wall=time.time(),
        names=NameFiles(str(directory / "names")),
    )


def _swim(
    config: PeerConfig,
    identity: Identity,
    transport: Transport,
    more_seeds: tuple[str, ...],
    disk: str,
) -> Swim:
    bulk_port = transport.bulk_address.rpartition(":")[2]
    me = Member(
        id=identity.id,
        address=transport.address,
        incarnation=identity.incarnation,
        zone=config.zone,
        weight=config.weight,
        slots=config.slots,
        pid=os.getpid(),
        session=identity.session,
        meta=((BULK_PORT_META, bulk_port), (DISK_META, disk)),
    )
    seeds = [*map(str, config.join), *(str(resolve(parse_address(address))) for address in more_seeds)]
    return Swim(me=me, config=config.swim, rng=random.Random(), seeds=seeds)


def _remember(directory: DataDirectory, identity: Identity, log: LogStream) -> None:
    try:
        directory.remember(identity)
    except OSError as error:  # membership mends a value that was lost, see `p2p.datadir`
        log(f"cannot store our incarnation: {error.strerror}")


def _has_ended(lifeline: int) -> bool:
    """Whether the process at the other end is gone; it never writes."""
    ready, _, _ = select.select([lifeline], [], [], 0)
    return bool(ready)
