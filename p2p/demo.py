"""`ringreduce demo`: a real swarm, a real job, a leader that is killed on the way.

The peers are processes of their own; the job counts the words of the Python standard library, which is on
every machine that can run this.  When some of its map tasks are committed, the peer that leads it is killed
with SIGKILL.  At the end the result is compared with that of the embedded engine, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from mapreduce import finding
from mapreduce.console import Command
from mapreduce.errors import JobError
from mapreduce.job import Job
from mapreduce.loading import Code
from p2p.handles import JobHandle, progress_line
from p2p.local_swarm import LocalSwarm

if TYPE_CHECKING:
    from p2p.job_questions import JobView

__all__ = ["DemoFailed", "demo", "run_demo"]

SPLIT_BYTES = 512 << 10
PARTITIONS = 8
ID_CHARS = 8
KILL_AT = 0.3  # of the map tasks
TOP_WORDS = 5
LONGEST_S = 300.0


class DemoFailed(JobError):
    """The demonstration did not show what it should have."""


@click.command(cls=Command, short_help="A swarm loses its leader in the midst of a job.")
@click.option("--peers", type=click.IntRange(3, 32), default=4, show_default=True, help="How many peers.")
def demo(peers: int) -> None:
    """Show a swarm at work on this machine.

    It starts real peer processes, counts the words of the Python standard library, kills the job's leader
    with SIGKILL on the way, and compares the result with a single process's.
    """
    run_demo(peers)


def run_demo(peers: int) -> None:
    """Run the demonstration; what it shows goes to stdout.

    Args:
        peers: how many, at least 3: of fewer none can be spared.

    Raises:
        DemoFailed: the results differ, or a map task that was committed ran again.
    """
    inputs = _library()
    job, code, _ = finding.load("wordcount", {})
    click.echo(
        f"counting the words of {len(inputs)} files of the Python standard library, "
        f"{_megabytes(inputs):.1f} MB"
    )
    with LocalSwarm(peers=peers, slots=1) as swarm:
        _show_ring(swarm)
        with closing(
            swarm.submit(
                job, inputs, code=code, split_bytes=SPLIT_BYTES, partitions=PARTITIONS, out_format="text"
            )
        ) as handle:
            click.echo(f"job {handle.id[:ID_CHARS]} is submitted to {swarm.peers[0]}")
            began_at = time.monotonic()
            view = _followed(swarm, handle)
            took_s = time.monotonic() - began_at
            report = handle.report()
            ours = hashlib.blake2b(digest_size=16)
            counts: dict[str, int] = {}
            for row in handle.client.parts(handle.id):
                part = handle.client.read_part(handle.id, row)
                ours.update(part)
                _count(part, counts)
    click.echo(f"the job took {took_s:.1f} s, with one takeover and {report['peers_lost']} peer lost")
    click.echo(f"leader at the end: {view.leader[:ID_CHARS]}, takeovers: {report['leader_changes']}")
    click.echo(f"maps run again: {report['maps_run_again']}")
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_WORDS]
    click.echo("most frequent: " + ", ".join(f"{word} {count:,}" for word, count in top))
    same = ours.hexdigest() == _alone(job, code, inputs)
    click.echo("the same as a single process's, byte for byte" if same else "NOT what a single process gives")
    if not same:
        raise DemoFailed("the swarm's result differs from that of a single process")
    if report["maps_run_again"]:
        raise DemoFailed(f"{report['maps_run_again']} committed map tasks ran again for one lost peer")


def _library() -> list[str]:
    """The Python files of the standard library's top level and its largest packages, in order."""
    root = sysconfig.get_path("stdlib")
    found: list[str] = []
    for directory, below, names in os.walk(root):
        below[:] = sorted(
            name for name in below if name not in ("site-packages", "dist-packages", "test", "__pycache__")
        )
        found += [os.path.join(directory, name) for name in sorted(names) if name.endswith(".py")]
    return [path for path in found if _is_text(path)]


def _is_text(path: str) -> bool:
    """Whether a file holds UTF-8; a few of the library's own examples do not, on purpose."""
    try:
        with open(path, encoding="utf-8") as file:
            file.read()
    except (OSError, UnicodeDecodeError):
        return False
    return True


def _megabytes(paths: list[str]) -> float:
    return sum(map(os.path.getsize, paths)) / 1e6


def _show_ring(swarm: LocalSwarm) -> None:
    from p2p.questions import AskMembers, MembersAre

    with swarm.client() as client:
        deadline = time.monotonic() + 10.0
        members = client.ask(AskMembers(number=0), MembersAre).members
        while len(members) < len(swarm.local.peers) and time.monotonic() < deadline:
            time.sleep(0.05)
            members = client.ask(AskMembers(number=0), MembersAre).members
    click.echo(f"the ring: {len(members)} peers")
    for member in members:
        click.echo(f"  {member.id[:ID_CHARS]}  {member.address}  process {member.pid}  {member.status.value}")


def _followed(swarm: LocalSwarm, handle: JobHandle) -> JobView:
    """Show the job's events; kill its leader when enough map tasks are committed."""
    killed = ""
    for event in handle.events(timeout_s=LONGEST_S):
        view = event.view
        if event.kind == "leader":
            how = "takes over" if killed else "is elected leader"
            click.echo(f"  {event.node[:ID_CHARS]} {how}")
        elif event.kind in ("lost", "healed", "again", "moved"):
            click.echo(f"  {event.node[:ID_CHARS]} {event.text}".rstrip())
        if not killed and view is not None and view.leader and _is_time(view):
            killed = view.leader
            process = swarm.kill(killed)
            click.echo(f"  {progress_line(view)}")
            click.echo(f"  SIGKILL for the leader, {killed[:ID_CHARS]}, process {process.pid}")
    if not killed:
        raise DemoFailed("the job was over before its leader could be killed")
    return handle.status()


def _is_time(view: JobView) -> bool:
    maps = view.stages[0]
    return maps.total > 0 and maps.done >= maps.total * KILL_AT


def _count(part: bytes, counts: dict[str, int]) -> None:
    for line in part.decode().splitlines():
        word, _, count = line.rpartition("\t")
        counts[word] = int(count)


def _alone(job: Job, code: Code, inputs: list[str]) -> str:
    """The digest of what the embedded engine gives."""
    from mapreduce.local import run

    digest = hashlib.blake2b(digest_size=16)
    with tempfile.TemporaryDirectory(prefix="ringreduce-demo-") as directory:
        output = os.path.join(directory, "out")
        run(
            job,
            inputs,
            workers=1,
            code=code,
            output=output,
            split_bytes=SPLIT_BYTES,
            partitions=PARTITIONS,
            on_message=lambda text: print(text, file=sys.stderr),
        ).close()
        for path in _parts(output):
            with open(path, "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def _parts(directory: str) -> Iterator[str]:
    for name in sorted(os.listdir(directory)):
        if name.startswith("part-"):
            yield os.path.join(directory, name)
