"""What continuous integration runs: about five minutes of everything, on two cores.

    python -m tools.chaos ci --seed 7

Each part is a command that anybody can give alone, and is printed before it runs.  Let the seed change with
every run, and in the course of time more is seen than five minutes hold.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Sequence

__all__ = ["parts", "run_selection"]


def parts(seed: int) -> list[list[str]]:
    """Return the command lines, without the program."""
    numbered = ["--seed", str(seed)]
    return [
        # Without `wipe` and `join`: what they found is open, see the track record.
        ["--minutes", "1", "--size", "300KB", "--faults", "kill,stop,leave", *numbered],
        [
            *("--peers", "8", "--replicas", "3", "--jobs", "25", "--lanes", "3", "--size", "300KB"),
            *("--faults", "kill", "--every", "kill=2", "--lasting", "kill=1-4", *numbered),
        ],
        ["kills", "--size", "8MB", "--runs", "3", "--at", "50", *numbered],
        ["pair", "--size", "8MB", "--runs", "1", *numbered],
        ["shuffles", "--records", "100000", "--partitions", "40", "--runs", "2", *numbered],
        ["failpoints", "--names", "takeover.ask,push.acked,drop.begin", "--actions", "kill"],
    ]


def run_selection(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run all parts, also when one has failed; returns 1 if any did.

    Args:
        run: runs one command line; gives its exit code.
        arguments: of the command itself.
    """
    text = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.chaos ci", description=text)
    parser.add_argument("--seed", type=int, default=1, help="of all parts (1)")
    parsed = parser.parse_args(arguments)
    failed: list[str] = []
    began = time.monotonic()
    for part in parts(parsed.seed):
        command = f"python -m tools.chaos {shlex.join(part)}"
        print(f"\n{time.monotonic() - began:5.0f} s  {command}", flush=True)
        if run(part):
            failed.append(command)
    print(f"\n{'BROKEN' if failed else 'HOLDS'}: all parts, after {time.monotonic() - began:.0f} s")
    for command in failed:
        print(f"  {command}")
    return 1 if failed else 0
