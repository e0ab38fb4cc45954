"""Results as pictures, PNG and SVG; matplotlib is needed here and nowhere else of the benchmark."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.benchmarks.curves import Curves
from tools.benchmarks.questions import STARTUP
from tools.benchmarks.results import SINGLE, Line, Recovery, Results
from tools.benchmarks.strikes import WORKER
from tools.benchmarks.tables import title_of

FORMATS = ("png", "svg")
WRAP_CHARS = 100


def why_not(folder: Path | None) -> str:
    """Return why pictures cannot be drawn, with the remedy; "" where they can, or none are wanted."""
    if folder is not None and importlib.util.find_spec("matplotlib") is None:
        return "--plot needs matplotlib: pip install 'ringreduce[bench]' (or leave it away)"
    return ""


def draw_comparison(results: Results, folder: Path) -> list[Path]:
    """Draw job times beside one thread's, memory, start-up, and what kills cost; returns the files."""
    lines = [line for line in results.lines() if line.question != STARTUP]
    found = _bars(
        folder / "times",
        [line for line in lines if line.ratio is not None and line.side != SINGLE],
        lambda line: line.ratio or 0.0,
        "job time, in times that of one thread (the line); shorter is better",
        mark=1.0,
    )
    found += _bars(
        folder / "memory",
        lines,
        lambda line: line.peak_tree_bytes / 1e6,
        "peak memory of all processes together, MB",
    )
    found += _bars(
        folder / "startup",
        [line for line in results.lines() if line.question == STARTUP],
        lambda line: line.start_s + line.job_s,
        "seconds from nothing to the answer, whatever has to be started for it",
    )
    if results.recoveries:
        found += _lost(folder / "recovery", results.recoveries)
    return found


def draw_curves(curves: Sequence[Curves], folder: Path) -> list[Path]:
    """Draw what grew against what it grew with, and under each what bounds it; returns the files."""
    found: list[Path] = []
    for each in curves:
        pyplot = _pyplot(folder)
        figure, axes = pyplot.subplots(figsize=(7, 5.2))
        for name, points in each.lines.items():
            axes.plot([x for x, _ in points], [y for _, y in points], "o-", label=name)
        ticks = sorted({x for points in each.lines.values() for x, _ in points})
        axes.set(title=each.title, xlabel=each.grows_with, ylabel=each.unit, xscale="log")
        axes.set_xticks(ticks, [f"{tick:,.4g}" for tick in ticks], rotation=30)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.legend()
        figure.text(0.5, 0.01, textwrap.fill(each.bound, WRAP_CHARS), ha="center", fontsize=8)
        figure.tight_layout(rect=(0, 0.04 + 0.025 * (len(each.bound) // WRAP_CHARS + 1), 1, 1))
        found += _saved(figure, folder / each.name)
        pyplot.close(figure)
    return found


def _bars(path: Path, lines: Sequence[Line], value: Any, label: str, mark: float = 0.0) -> list[Path]:
    """Draw a group of bars a question, one a side, on a logarithmic scale: ratios go from 0.2 to 200."""
    if not lines:
        return []
    pyplot = _pyplot(path.parent)
    questions = list(dict.fromkeys(line.question for line in lines))
    sides = list(dict.fromkeys(line.side for line in lines))
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + len(questions) * (0.3 + 0.16 * len(sides))))
    height = 0.85 / len(sides)
    colours = pyplot.get_cmap("tab20").colors
    for number, side in enumerate(sides):
        own = [line for line in lines if line.side == side]
        places = [questions.index(line.question) + (number - len(sides) / 2) * height for line in own]
        axes.barh(
            places, [value(line) for line in own], height, label=side, color=colours[number % len(colours)]
        )
    if mark:
        axes.axvline(mark, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel=label)
    axes.set_yticks(range(len(questions)), [title_of(question) for question in questions])
    axes.invert_yaxis()
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    found = _saved(figure, path)
    pyplot.close(figure)
    return found


def _lost(path: Path, recoveries: Sequence[Recovery]) -> list[Path]:
    """Draw what each kill cost; hatched where the job was lost, and all of it is to be done again."""
    pyplot = _pyplot(path.parent)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.3 * len(recoveries)))
    for place, each in enumerate(recoveries):
        colour = "C0" if each.victim == WORKER else "C1"
        axes.barh(place, each.lost_s, color=colour, hatch="" if each.survived else "//", edgecolor="black")
    names = [f"{each.side}, {each.victim}" for each in recoveries]
    axes.set_yticks(range(len(recoveries)), names)
    asked = ", ".join(dict.fromkeys(title_of(each.question) for each in recoveries))
    axes.set(xlabel=f"seconds that a SIGKILL in the midst of a job cost ({asked}); hatched: it was lost")
    axes.invert_yaxis()
    figure.tight_layout()
    found = _saved(figure, path)
    pyplot.close(figure)
    return found


def _pyplot(folder: Path) -> Any:
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed to write a file
    # Text stays text, which is small, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ringreduce"})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    return pyplot


def _saved(figure: Any, path: Path) -> list[Path]:
    files = [path.with_suffix(f".{kind}") for kind in FORMATS]
    for file in files:
        figure.savefig(file, dpi=120, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files
