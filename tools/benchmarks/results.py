"""What a comparison found: every run as it was, medians and spread made of them, and all of it as JSON.

Runs are kept one by one, so that several calls, one a row or one a round, can be put together afterwards
(`python -m tools.bench table FILE…`) and nothing is averaged twice.  Ratios are of median job times, to the
script of one thread in the same file or files.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tools.benchmarks.sides import Run

FORMAT = 1
SINGLE = "single"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a SIGKILL in the middle of a job cost.

    Attributes:
        question, side: whose.
        victim: "worker" or "coordinator".
        undisturbed_s: the job's median without it.
        wall_s: with it, until the answer was there, or until it was known that there will be none.
        survived: the right answer came.
        note: why not, in a line.
    """

    question: str
    side: str
    victim: str
    undisturbed_s: float
    wall_s: float
    survived: bool
    note: str = ""

    @property
    def lost_s(self) -> float:
        """Seconds that the kill cost; where the job was lost, all of them and the whole job once more."""
        again_s = 0.0 if self.survived else self.undisturbed_s
        return max(0.0, self.wall_s + again_s - self.undisturbed_s)


@dataclass(slots=True)
class Results:
    """All that was measured.

    Attributes:
        settings: of the call: size, rounds, machine, date.
        runs: {question: {side: runs}}; "startup" is a job of ten lines.
        recoveries: of `--kill`.
        left_out: one line for each side that is missing.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    recoveries: list[Recovery] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, question: str, side: str, run: Run) -> None:
        """Take another run."""
        self.runs.setdefault(question, {}).setdefault(side, []).append(run)

    def lines(self) -> list[Line]:
        """Return the medians, in the order in which questions and sides first came."""
        return [
            line_of(question, side, runs, sides.get(SINGLE, ()))
            for question, sides in self.runs.items()
            for side, runs in sides.items()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One side's answers to one question, as medians.

    Attributes:
        ratio: of its job time to that of one thread; None where that is not known.
        fastest_s, slowest_s: job times.
    """

    question: str
    side: str
    rounds: int
    start_s: float
    job_s: float
    fastest_s: float
    slowest_s: float
    ratio: float | None
    cpu_s: float
    peak_process_bytes: int
    peak_tree_bytes: int


def line_of(question: str, side: str, runs: Sequence[Run], single: Sequence[Run]) -> Line:
    """Return the medians of some runs; `single` are those of one thread."""
    job_s = median(run.job_s for run in runs)
    return Line(
        question=question,
        side=side,
        rounds=len(runs),
        start_s=median(run.start_s for run in runs),
        job_s=job_s,
        fastest_s=min(run.job_s for run in runs),
        slowest_s=max(run.job_s for run in runs),
        ratio=job_s / median(run.job_s for run in single) if single else None,
        cpu_s=median(run.cpu_s for run in runs),
        peak_process_bytes=int(median(run.peak_process_bytes for run in runs)),
        peak_tree_bytes=int(median(run.peak_tree_bytes for run in runs)),
    )


def this_machine() -> dict[str, Any]:
    """Return what a reader of the figures has to know of the machine, and the day."""
    return {
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def as_json(results: Results) -> str:
    """Return everything, the medians too for whoever reads it without us."""
    return json.dumps(
        {
            "format": FORMAT,
            "settings": results.settings,
            "runs": {
                question: {side: [asdict(run) for run in runs] for side, runs in sides.items()}
                for question, sides in results.runs.items()
            },
            "recoveries": [
                {**asdict(recovery), "lost_s": recovery.lost_s} for recovery in results.recoveries
            ],
            "left_out": results.left_out,
            "lines": [asdict(line) for line in results.lines()],
        },
        indent=1,
    )


def read(paths: Sequence[Path]) -> Results:
    """Return what some files hold, put together.

    Raises:
        ValueError: a file is not one of ours, or they are from different machines or of different sizes.
        OSError: it cannot be read.
    """
    together = Results()
    for path in paths:
        content = json.loads(path.read_text())
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise ValueError(f"{path} holds no results of `tools.bench compare --json`")
        settings = content["settings"]
        for same in ("machine", "size_bytes"):
            if together.settings and settings[same] != together.settings[same]:
                raise ValueError(f"{path} has another {same} than {paths[0]}: {settings[same]}")
        together.settings = together.settings or settings
        for question, sides in content["runs"].items():
            for side, runs in sides.items():
                for run in runs:
                    together.add(question, side, Run(**run))
        for recovery in content["recoveries"]:
            del recovery["lost_s"]
            together.recoveries.append(Recovery(**recovery))
        together.left_out += [line for line in content["left_out"] if line not in together.left_out]
    return together
