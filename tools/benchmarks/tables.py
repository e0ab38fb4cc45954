"""Results as tables, for a terminal or for a README."""

from __future__ import annotations

from collections.abc import Sequence

from tools.benchmarks.questions import QUESTIONS
from tools.benchmarks.results import SINGLE, Line, Results

Row = tuple[str, ...]

HEADINGS = ("question", "side", "start", "job", "fastest – slowest", "to single", "CPU", "peak of all")
RECOVERY_HEADINGS = ("question", "side", "killed", "undisturbed", "with the kill", "lost", "")


def tables(results: Results, *, markdown: bool) -> str:
    """Return all tables of a comparison, one below the other."""
    lines = results.lines()
    found = []
    if markdown and any(line.ratio is not None for line in lines):
        found.append(written(ratio_rows(lines), labels=1, markdown=True))
    found.append(written([HEADINGS, *map(line_row, lines)], labels=2, markdown=markdown))
    if results.recoveries:
        rows = [
            (
                title_of(each.question),
                each.side,
                each.victim,
                f"{each.undisturbed_s:.2f} s",
                f"{each.wall_s:.2f} s",
                f"{each.lost_s:.2f} s",
                each.note if each.survived else f"job lost: {each.note}",
            )
            for each in results.recoveries
        ]
        found.append(written([RECOVERY_HEADINGS, *rows], labels=3, markdown=markdown))
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


def ratio_rows(lines: Sequence[Line]) -> list[Row]:
    """Return a row a question and a column a side: seconds of one thread, and everybody's ratio to it."""
    sides = list(dict.fromkeys(line.side for line in lines))
    cells = {(line.question, line.side): line for line in lines}
    rows = [("question", *(f"{side}" for side in sides))]
    for question in dict.fromkeys(line.question for line in lines):
        row = [title_of(question)]
        for side in sides:
            line = cells.get((question, side))
            if line is None:
                row.append("–")
            elif side == SINGLE or line.ratio is None:
                row.append(f"{line.job_s:.2f} s")
            else:
                row.append(f"{line.ratio:.2f}")
        rows.append(tuple(row))
    return rows


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
