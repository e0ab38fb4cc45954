"""What continuous integration runs: less than five minutes of everything, on two cores.

    python -m tools.chaos ci --seed 7

Each part is a command that anybody can give alone, and is printed before it runs.  It takes no rights that a
user has not: the network is one of proxies.  The seed is the same in every run, so that what fails was there
before or came with the change; by hand, let it vary, and in the course of time more is seen.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.chaos.network import CHOICE

__all__ = ["parts", "run_selection"]

NETWORK = "proxies"


def parts(seed: int, cache: Path) -> list[list[str]]:
    """Return the command lines, without the program.

    Args:
        cache: an empty directory: what is right is computed anew each time, by the code that is tested.
    """
    numbered = ["--seed", str(seed)]
    return [
        [  # until each of its faults has come
            *("--jobs", "15", "--minutes", "1.5", "--ttl", "30", "--size", "200KB"),
            *("--faults", "kill,wipe,stop,leave,join", "--every", "kill=8,wipe=8,stop=10,leave=8,join=12"),
            *("--lasting", "stop=1-12,join=5-15", *numbered),
        ],
        ["pair", "--size", "8MB", "--runs", "1", "--cache", str(cache), *numbered],
        ["split", "--shapes", "partition,oneway,bridge", *numbered],
        ["rot", "--ways", "flip,swap", *numbered],
        ["hostile", "--ways", "segfault,gigabyte,swallowed-interrupt", *numbered],
        ["failpoints", "--names", "takeover.ask,push.acked,drop.begin", "--actions", "kill", *numbered],
        ["failpoints", "--names", "vote.sync,store.rename", "--actions", "eio", *numbered],
        # A leader that is stopped as it commits, and wakes when its successor has gone on.
        ["failpoints", "--names", "commit.accept", "--actions", "stop", *numbered],
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
    os.environ[CHOICE] = NETWORK
    failed: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ringreduce-chaos-") as cache:
        for part in parts(parsed.seed, Path(cache)):
            command = f"{CHOICE}={NETWORK} python -m tools.chaos {shlex.join(part)}"
            print(f"\n{time.monotonic() - began:5.0f} s  {command}", flush=True)
            if run(part):
                failed.append(command)
    print(f"\n{'BROKEN' if failed else 'HOLDS'}: all parts, after {time.monotonic() - began:.0f} s")
    for command in failed:
        print(f"  {command}")
    return 1 if failed else 0
