"""``python -m tools.chaos``: break a real swarm in every way, and look at the answer.

Real peers run jobs again and again while they are killed, stopped, cut off and filled up; every answer is
compared with the embedded engine's, byte for byte.  Exit code 0: everything held; 1: something did not (what,
and how to replay it, is printed); 2: bad usage, or this machine lacks something; 130: interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from tools.chaos import faults
from tools.chaos.drills import DRILLS, run_drill
from tools.chaos.job_run import Bounds
from tools.chaos.options import count, size
from tools.chaos.scenario_cli import SCENARIOS, run_scenario
from tools.chaos.selection import run_selection
from tools.chaos.storm import Settings, Storm
from tools.chaos.workloads import WORKLOADS

__all__ = ["main"]

INTERRUPTED = 130
SETTLE_SHARE = 2 / 3  # of results' time to live: by then their copies must be there again


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] == "ci":
            return run_selection(main, given[1:])
        if given and given[0] in SCENARIOS:
            return run_scenario(given[0], given[1:])
        if given and given[0] in DRILLS:
            return run_drill(given[0], given[1:])
        faults.load_all()
        return _storm(_parser().parse_args(given), given)
    except faults.FaultUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _storm(parsed: argparse.Namespace, given: list[str]) -> int:
    settings = Settings(
        seed=parsed.seed,
        peers=parsed.peers,
        replicas=parsed.replicas,
        slots=parsed.slots,
        allowed_down=parsed.down if parsed.down is not None else parsed.replicas - 1,
        jobs=parsed.jobs,
        minutes=parsed.minutes if parsed.minutes is not None else (0.0 if parsed.jobs else 5.0),
        lanes=parsed.lanes,
        kinds=parsed.faults,
        every_s=dict(parsed.every),
        lasts_s=dict(parsed.lasting),
        workloads=parsed.workloads,
        size_bytes=parsed.size,
        bounds=Bounds(
            maps_again=10**9 if parsed.down is not None and parsed.down >= parsed.replicas else 0,
            ttl_s=parsed.ttl,
            settle_s=SETTLE_SHARE * parsed.ttl,
        ),
    )
    directory = Path(tempfile.mkdtemp(prefix="ringreduce-chaos-"))
    storm = Storm(settings, directory)
    holds = False
    try:
        holds = storm.run()
    finally:
        if holds and not parsed.keep:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            print(f"logs and jobs are kept in {directory}", file=sys.stderr)
    if parsed.report is not None:
        from tools.chaos.report import write_storm

        write_storm(parsed.report, storm, f"python -m tools.chaos {shlex.join(given)}")
    ended = [run for run in storm.runs if not run.problems]
    print("\n".join(storm.invariants.lines()))
    print(f"faults: {', '.join(f'{n} {name}' for name, n in storm.started.items()) or 'none'}")
    print(f"{'HOLDS' if holds else 'BROKEN'}: {len(ended)} of {len(storm.runs)} jobs right")
    if not holds:
        print(f"replay: python -m tools.chaos {shlex.join(_with_seed(given, parsed.seed))}")
    return 0 if holds else 1


def _with_seed(given: list[str], seed: int) -> list[str]:
    return given if "--seed" in given else [*given, "--seed", str(seed)]


# ---- options ---------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos",
        description=(__doc__ or "").split("\n", 2)[2],
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of jobs, faults and their times (1)")
    add("--peers", type=count, default=5, metavar="N", help="how many (5)")
    add("--replicas", type=count, default=2, metavar="R", help="copies of every output (2)")
    add("--slots", type=count, default=1, metavar="N", help="tasks at a time of each peer (1)")
    add("--down", type=int, metavar="N", help="how many peers may be down at once (R-1)")
    add(
        "--minutes",
        type=float,
        metavar="M",
        help="begin no more jobs after this time (5, or with --jobs none)",
    )
    add("--jobs", type=int, default=0, metavar="N", help="run so many jobs")
    add("--lanes", type=count, default=2, metavar="N", help="jobs at the same time (2)")
    add("--faults", type=_kinds, default=_default_kinds(), metavar="A,B", help="which; 'none' for none")
    add("--every", type=_every, default=(), metavar="A=S,…", help="mean seconds between two faults of a kind")
    add("--lasting", type=_lasting, default=(), metavar="A=S-S,…", help="how long faults of a kind last")
    add("--workloads", type=_workloads, default=tuple(WORKLOADS), metavar="A,B", help=", ".join(WORKLOADS))
    add("--size", type=size, default=1_000_000, metavar="SIZE", help="of each input (1MB)")
    add("--ttl", type=_positive, default=60.0, metavar="S", help="results live so long after their job (60)")
    add("--report", type=Path, metavar="FILE.html", help="write a page to look at")
    add("--keep", action="store_true", help="keep the directory with logs and outputs")
    return parser


def _epilog() -> str:
    """What else there is: faults, and other commands."""
    kinds = "".join(f"\n  {kind.name:<12} {kind.description}" for kind in faults.KINDS.values())
    texts = {name: scenario.text for name, scenario in SCENARIOS.items()}
    texts |= {name: drill.text for name, drill in DRILLS.items()}
    others = "".join(f"\n  {name:<12} {text}" for name, text in texts.items())
    return f"faults:{kinds}\n\nother commands (each with its own --help):{others}"


def _default_kinds() -> tuple[faults.FaultKind, ...]:
    return tuple(kind for kind in faults.KINDS.values() if kind.by_default)


def _kinds(text: str) -> tuple[faults.FaultKind, ...]:
    if text == "none":
        return ()
    return tuple(faults.KINDS[_known(name, faults.KINDS, "fault")] for name in text.split(","))


def _workloads(text: str) -> tuple[str, ...]:
    return tuple(_known(name, WORKLOADS, "workload") for name in text.split(","))


def _every(text: str) -> tuple[tuple[str, float], ...]:
    return tuple((name, float(value)) for name, value in _pairs(text))


def _lasting(text: str) -> tuple[tuple[str, tuple[float, float]], ...]:
    found: list[tuple[str, tuple[float, float]]] = []
    for name, value in _pairs(text):
        least, _, most = value.partition("-")
        found.append((name, (float(least), float(most or least))))
    return tuple(found)


def _pairs(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{pair!r} is not FAULT=SECONDS")
        found.append((_known(name, faults.KINDS, "fault"), value))
    return found


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _known(name: str, names: Collection[str], what: str) -> str:
    if name not in names:
        raise argparse.ArgumentTypeError(f"there is no {what} {name!r}: it is one of {', '.join(names)}")
    return name
