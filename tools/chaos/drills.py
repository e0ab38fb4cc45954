"""Drills, which hurt peers at chosen moments rather than at random.

Use:

    python -m tools.chaos failpoints --names vote,push --actions kill,stop
    python -m tools.chaos split --rounds 2
    python -m tools.chaos rot --rounds 3
    python -m tools.chaos zombies --rounds 5
    python -m tools.chaos hostile --ways segfault,gigabyte
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.chaos.chaos_peer import PeerWouldNotStart
from tools.chaos.options import count

__all__ = ["DRILLS", "Drill", "run_drill"]


class Found(Protocol):
    """How one round of a drill went; its text is one line."""

    @property
    def wrong(self) -> Sequence[str]:
        """Every claim that did not hold."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A row of the table of commands.

    Attributes:
        text: one line for --help.
        run: given the arguments, a directory and a function that takes each line, counts what was wrong.
    """

    text: str
    run: Callable[[Sequence[str], Path, Callable[[object], None]], int]


def run_drill(name: str, arguments: Sequence[str]) -> int:
    """Run a drill; returns the exit code: 0 if all held, 1 if not."""
    began_at = time.monotonic()

    def tell(outcome: object) -> None:
        print(f"{time.monotonic() - began_at:7.1f}  {outcome}", flush=True)

    directory = Path(tempfile.mkdtemp(prefix="ringreduce-chaos-"))
    try:
        wrong = DRILLS[name].run(arguments, directory / "run", tell)
    except PeerWouldNotStart as error:
        print(f"BROKEN: {error}")
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{'HOLDS' if not wrong else f'BROKEN: {wrong} wrong'}, after {time.monotonic() - began_at:.0f} s")
    return 1 if wrong else 0


def _failpoints(arguments: Sequence[str], directory: Path, tell: Callable[[object], None]) -> int:
    from tools.chaos.failpoints import run_failpoints
    from tools.chaos.moments import combinations

    parser = _parser("failpoints")
    parser.add_argument("--names", default="", metavar="A,B", help="failpoints, or beginnings of them (all)")
    parser.add_argument("--actions", default="", metavar="A,B", help="kill, stop, cut, eio, slow (all)")
    parser.add_argument("--swarms", type=count, default=2, metavar="N", help="side by side (2)")
    parser.add_argument("--peers", type=count, default=4, metavar="N", help="of each (4)")
    parser.add_argument("--replicas", type=count, default=2, metavar="R", help="of each job (2)")
    given = parser.parse_args(arguments)
    try:
        rounds = combinations(_words(given.names), _words(given.actions))
    except ValueError as error:
        parser.error(str(error))
    outcomes = run_failpoints(
        rounds,
        directory,
        swarms=given.swarms,
        peers=given.peers,
        replicas=given.replicas,
        seed=given.seed,
        tell=tell,
    )
    print(f"{len(outcomes)} combinations, {sum(bool(outcome.who) for outcome in outcomes)} fired")
    return _wrong(outcomes)


def _split(arguments: Sequence[str], directory: Path, tell: Callable[[object], None]) -> int:
    from tools.chaos.splits import SHAPES, Splits

    seed, rounds, shapes = _chosen("split", "shapes", SHAPES, arguments)
    with Splits(directory, seed=seed) as splits:
        each = [(shape, leader_apart) for shape in shapes for leader_apart in (True, False)]
        return _told((splits.run(shape, leader_apart=apart) for shape, apart in each * rounds), tell)


def _rot(arguments: Sequence[str], directory: Path, tell: Callable[[object], None]) -> int:
    from tools.chaos.rots import WAYS, Decay, Rots

    seed, rounds, ways = _chosen("rot", "ways", WAYS, arguments)
    with Rots(directory, seed=seed) as rots:
        each = [(way, parts) for way in ways for parts in (False, True)]
        decays: list[Decay] = []
        for way, parts in each * rounds:
            decays.append(rots.run(way, parts=parts))
            tell(decays[-1])
    hurt, found = sum(one.hurt for one in decays), sum(one.found for one in decays)
    dropped = sum(one.dropped for one in decays)
    print(f"{found} of {hurt} damaged segments found, {dropped} dropped unread with their stage")
    return _wrong(decays)


def _zombies(arguments: Sequence[str], directory: Path, tell: Callable[[object], None]) -> int:
    from tools.chaos.zombies import MOMENTS, Awakening, Zombies

    seed, rounds, moments = _chosen("zombies", "moments", MOMENTS, arguments)
    with Zombies(directory, seed=seed) as zombies:
        found: list[Awakening] = []
        for moment in moments * rounds:
            found.append(zombies.run(moment))
            tell(found[-1])
    led, stale = sum(one.led for one in found), sum(len(one.stale) for one in found)
    print(f"{len(found)} zombies, {led} of them leaders: {stale} stale writes")
    return _wrong(found)


def _hostile(arguments: Sequence[str], directory: Path, tell: Callable[[object], None]) -> int:
    from tools.chaos.hostile_jobs import EXPECTED, Hostilities

    _, rounds, ways = _chosen("hostile", "ways", EXPECTED, arguments)
    with Hostilities(directory) as hostilities:
        return _told((hostilities.run(way) for way in ways * rounds), tell)


DRILLS = {
    "failpoints": Drill(text="every named moment of a job's life with every fault", run=_failpoints),
    "split": Drill(text="the ring is cut in two in the midst of a job, and heals", run=_split),
    "rot": Drill(text="all outputs on one peer are damaged just before they are read", run=_rot),
    "zombies": Drill(
        text="a peer is stopped with a write in its hands, and wakes when others have gone on", run=_zombies
    ),
    "hostile": Drill(text="user code does the worst, beside an innocent job", run=_hostile),
}


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m tools.chaos {name}", description=DRILLS[name].text)
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (1)")
    return parser


def _chosen(
    name: str, what: str, names: Collection[str], arguments: Sequence[str]
) -> tuple[int, int, list[str]]:
    """Return the seed, how many rounds, and which of these names are to be run in each."""
    parser = _parser(name)
    parser.add_argument("--rounds", type=count, default=1, metavar="N", help=f"of all {what} (1)")
    parser.add_argument(f"--{what}", default=",".join(names), metavar="A,B", help=", ".join(names))
    given = parser.parse_args(arguments)
    words = _words(getattr(given, what))
    for word in words:
        if word not in names:
            parser.error(f"there is no {word!r}: it is one of {', '.join(names)}")
    return given.seed, given.rounds, words


def _told(findings: Iterable[Found], tell: Callable[[object], None]) -> int:
    """Tell each finding as it comes; returns how many were wrong."""
    wrong = 0
    for finding in findings:
        tell(finding)
        wrong += _wrong([finding])
    return wrong


def _wrong(findings: Iterable[Found]) -> int:
    return sum(bool(finding.wrong) for finding in findings)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]
