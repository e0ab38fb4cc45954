"""Results as tables, for a terminal or for a README."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tools.benchmarks.questions import QUESTIONS, STARTUP
from tools.benchmarks.results import SINGLE, Line, Recovery, Results

Row = tuple[str, ...]

HEADINGS = ("question", "side", "start", "job", "fastest – slowest", "to single", "CPU", "peak of all")
STARTUP_HEADINGS = ("a job of ten lines", "its system stands", "the job", "from nothing")
RECOVERY_HEADINGS = ("question", "side", "killed", "undisturbed", "with the kill", "lost", "")


def tables(results: Results, *, markdown: bool) -> str:
    """Return all tables of a comparison, one below the other; in Markdown the short ones come first."""
    lines = results.lines()
    asked = [line for line in lines if line.question != STARTUP]
    started = [line for line in lines if line.question == STARTUP]
    found = []
    if markdown and any(line.ratio is not None for line in asked):
        found.append(written(matrix(asked, ratio_cell), labels=1, markdown=True))
        found.append(written(matrix(asked, memory_cell), labels=1, markdown=True))
    if markdown and started:
        rows = [STARTUP_HEADINGS, *map(startup_row, started)]
        found.append(written(rows, labels=1, markdown=True))
    if results.recoveries:
        rows = [RECOVERY_HEADINGS, *map(recovery_row, results.recoveries)]
        found.append(written(rows, labels=3, markdown=markdown))
    found.append(written([HEADINGS, *map(line_row, lines)], labels=2, markdown=markdown))
    found += results.left_out
    return "\n\n".join(found)


def title_of(question: str) -> str:
    """Return what a question is called in a table."""
    return QUESTIONS[question].title


def line_row(line: Line) -> Row:
    """Return the cells of one line of the long table."""
    return (
        title_of(line.question),
        line.side,
        f"{line.start_s:.2f} s" if line.start_s else "",
        f"{line.job_s:.2f} s",
        f"{line.fastest_s:.2f} – {line.slowest_s:.2f}",
        "" if line.ratio is None else f"{line.ratio:.2f}",
        f"{line.cpu_s:.2f} s",
        f"{line.peak_tree_bytes / 1e6:,.0f} MB" if line.peak_tree_bytes else "",
    )


def startup_row(line: Line) -> Row:
    """Return the cells of a job of ten lines: its system's start, the job, and both."""
    start = f"{line.start_s:.2f} s" if line.start_s else ""
    return line.side, start, f"{line.job_s:.2f} s", f"{line.start_s + line.job_s:.2f} s"


def recovery_row(each: Recovery) -> Row:
    """Return the cells of one kill."""
    return (
        title_of(each.question),
        each.side,
        each.victim,
        f"{each.undisturbed_s:.2f} s",
        f"{each.wall_s:.2f} s",
        f"{each.lost_s:.2f} s",
        each.note if each.survived else f"job lost: {each.note}",
    )


def matrix(lines: Sequence[Line], cell: Callable[[Line], str]) -> list[Row]:
    """Return a row a side and a column a question."""
    questions = list(dict.fromkeys(line.question for line in lines))
    cells = {(line.question, line.side): cell(line) for line in lines}
    rows: list[Row] = [("", *map(title_of, questions))]
    for side in dict.fromkeys(line.side for line in lines):
        rows.append((side, *(cells.get((question, side), "–") for question in questions)))
    return rows


def ratio_cell(line: Line) -> str:
    """Return one thread's seconds, and everybody else's ratio to them."""
    return f"{line.job_s:.2f} s" if line.side == SINGLE or line.ratio is None else f"{line.ratio:.2f}"


def memory_cell(line: Line) -> str:
    """Return the peak memory of all processes together."""
    return f"{line.peak_tree_bytes / 1e6:,.0f} MB" if line.peak_tree_bytes else "–"


def written(rows: Sequence[Row], *, labels: int, markdown: bool) -> str:
    """Return rows, the first of them headings, as a table; its first `labels` columns are no numbers."""
    if markdown:
        bars = f"|{'---|' * labels}{'--:|' * (len(rows[0]) - labels)}"
        cells = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([cells[0], bars, *cells[1:]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < labels else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
