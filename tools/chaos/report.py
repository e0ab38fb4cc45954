"""The report: one HTML file to look at, with nothing beside it.

The charts (`tools.chaos.chart`) come first: the eye finds the moment that an entry of a log hides.

Everything that comes from outside is escaped; the page loads nothing and runs no script.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tools.chaos.chart import Course, chart, key, spread
from tools.chaos.invariants import Invariants
from tools.chaos.recovery import JobBar, elections_of, percentile, recoveries_of

if TYPE_CHECKING:
    from tools.chaos.scenarios import Result
    from tools.chaos.storm import Storm

__all__ = ["page", "write_storm", "write_trials"]

STYLE = Path(__file__).with_suffix(".css")
WORST_SHOWN = 6

# ---- what is written -------------------------------------------------------------------------------------


def write_storm(path: Path, storm: Storm, command: str) -> None:
    """Write the page of a storm."""
    jobs = [
        JobBar(
            number=run.number,
            id=run.id,
            name=run.workload.name,
            began_s=run.began_s,
            ended_s=run.began_s + run.wall_s if run.wall_s else run.ended_s,
            problem="; ".join(run.problems),
            events=run.report.get("events", ()),
        )
        for run in storm.runs
    ]
    course = Course(
        title="", peers=len(storm.cluster.peers), journal=storm.journal, spans=storm.watching.spans, jobs=jobs
    )
    kinds = [incident.kind for incident in storm.journal.incidents]
    tiles = [
        (f"{sum(not job.problem for job in jobs)} / {len(jobs)}", "jobs right"),
        (str(kinds.count("kill")), "kills"),
        (str(kinds.count("stop")), "stops"),
        (str(sum(max(0, len(elections_of(job, storm.journal)) - 1) for job in jobs)), "takeovers"),
        (f"{storm.journal.now_s() / 60:.1f} min", "long"),
    ]
    settings = storm.settings
    about = f"{settings.peers} peers, {settings.replicas} replicas, seed {settings.seed} · {command}"
    path.write_text(
        page(
            "A swarm under fire",
            about,
            storm.invariants.holds,
            tiles,
            [course],
            [took for job in jobs for took in recoveries_of(job, storm.journal)],
            "From the moment a job's leader was hurt to the first commit under its successor, a dot each",
            _invariants(storm.invariants) + _jobs(jobs),
        ),
        encoding="utf-8",
    )


def write_trials(path: Path, title: str, results: Sequence[Result]) -> None:
    """Write the page of a scenario's trials; charts of the slowest with blows, at most `WORST_SHOWN`."""
    hurt = [result for result in results if result.trial.blows and not result.missed]
    worst = sorted(hurt, key=lambda result: -result.recovery_s)[:WORST_SHOWN] or list(results[:1])
    courses = [_course(result) for result in worst]
    rows = "".join(
        "<tr>"
        + _cells(
            (
                str(result.number),
                result.trial.text,
                f"{result.wall_s:.1f}",
                f"{result.undisturbed_s:.1f}",
                f"{result.recovery_s:.1f}" if result.trial.blows else "",
                str(result.report.get("maps_run_again", "?")),
                str(result.report.get("leader_changes", "?")),
                "; ".join(result.problems) or ("missed" if result.missed else "right"),
            )
        )
        + "</tr>"
        for result in results
    )
    heads = ("run", "what", "wall, s", "undisturbed, s", "recovery, s", "maps again", "takeovers", "verdict")
    table = f"<h2>Runs</h2><table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>"
    tiles = [
        (f"{sum(not result.problems for result in hurt)} / {len(hurt)}", "runs right"),
        (str(sum(result.report.get("maps_run_again", 0) for result in hurt)), "maps run again"),
        (f"{sum(result.is_in_time for result in hurt)} / {len(hurt)}", "within the bound"),
    ]
    path.write_text(
        page(
            title,
            f"{results[0].peers} peers" if results else "",
            not any(result.problems for result in results),
            tiles,
            courses,
            [result.recovery_s for result in hurt],
            "How much longer the command took than undisturbed, a dot each",
            table,
        ),
        encoding="utf-8",
    )


def page(
    title: str,
    about: str,
    holds: bool,
    tiles: Sequence[tuple[str, str]],
    courses: Sequence[Course],
    recoveries: Sequence[float],
    of_what: str,
    tables: str,
) -> str:
    """Return the whole page.

    Args:
        title, about: shown at the top.
        holds: the verdict.
        tiles: (figure, what it is).
        courses: a chart for each.
        recoveries: seconds.
        of_what: what they are, in one line.
        tables: HTML.
    """
    ascending = sorted(recoveries)
    more = [
        (f"{percentile(ascending, percent):.1f} s", f"recovery p{percent}")
        for percent in ((50, 99) if ascending else ())
    ]
    shown = "".join(
        f"<div class=tile><b>{escape(figure)}</b><span>{escape(what)}</span></div>"
        for figure, what in [*tiles, *more]
    )
    charts = "".join(
        (f"<h2>{escape(course.title)}</h2>" if course.title else "<h2>What happened</h2>") + chart(course)
        for course in courses
    )
    verdict = "<span class='badge good'>holds</span>" if holds else "<span class='badge bad'>broken</span>"
    recovery = ""
    if ascending:
        recovery = f"<h2>Recovery</h2><p>{escape(of_what)}</p><div class=scroll>{spread(ascending)}</div>"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style><main><h1>{escape(title)}{verdict}</h1>"
        f"<p>{escape(about)}</p><p>{time.strftime('%Y-%m-%d %H:%M')}</p><div class=tiles>{shown}</div>"
        f"{key()}{charts}{recovery}{tables}</main></html>\n"
    )


# ---- tables --------------------------------------------------------------------------------------------


def _invariants(invariants: Invariants) -> str:
    rows: list[str] = []
    for name, text in invariants.texts.items():
        broken = invariants.broken.get(name, ())
        checked = invariants.checked[name]
        verdict = "<span class=yes>holds</span>" if checked else "not checked"
        if broken:
            verdict = f"<span class=broken>broken {len(broken)}×</span>"
        shown = "".join(f"<pre>{escape(problem)}</pre>" for problem in broken[:5])
        rows.append(f"<tr><td>{escape(text)}{shown}</td><td class=no>{checked:,}</td><td>{verdict}</td></tr>")
    head = "<tr><th>what must hold</th><th>checked</th><th>verdict</th></tr>"
    return f"<h2>Invariants</h2><table>{head}{''.join(rows)}</table>"


def _jobs(jobs: Sequence[JobBar]) -> str:
    rows = "".join(
        "<tr>"
        + _cells(
            (
                str(job.number),
                job.name,
                job.id[:12],
                f"{job.began_s:.1f}",
                f"{job.ended_s - job.began_s:.1f}",
                job.problem or "right",
            )
        )
        + "</tr>"
        for job in jobs
    )
    head = "<tr><th>job</th><th>what</th><th>id</th><th>at, s</th><th>took, s</th><th>verdict</th></tr>"
    return f"<h2>Jobs</h2><details><summary>all {len(jobs)}</summary><table>{head}{rows}</table></details>"


def _cells(values: Iterable[str]) -> str:
    return "".join(f"<td>{escape(value)}</td>" for value in values)


def _course(result: Result) -> Course:
    job = JobBar(
        number=result.number,
        id=str(result.report.get("job_id", "")),
        name=str(result.report.get("job", "")),
        began_s=result.began_s,
        ended_s=result.ended_s,
        problem="; ".join(result.problems),
        events=result.report.get("events", ()),
    )
    title = f"Run {result.number}: {result.trial.text}, {result.wall_s:.1f} s"
    return Course(title=title, peers=result.peers, journal=result.journal, spans=result.spans, jobs=[job])
