"""The commands about jobs that are on a swarm: list them, look at one, follow, fetch, cancel.

Only click and the console are imported here; what a command needs is imported when it runs.  Results go to
stdout, everything else to stderr.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from mapreduce.console import Command
from p2p.command_options import Seconds, Where, peer_options, print_json, print_table, waiting_options
from p2p.following import ID_CHARS, see_through
from p2p.result_output import fetch, try_output

if TYPE_CHECKING:
    from p2p.job_questions import JobRow, JobView

__all__ = ["attach", "cancel", "jobs", "logs", "result", "status"]


@click.command(cls=Command, short_help="List the jobs of a swarm.")
@peer_options
def jobs(format: str, **where_to: Any) -> None:
    """List the jobs that any peer knows of, youngest first."""
    with Where(**where_to).client() as client:
        answer = client.jobs()
    rows = [_row(row) for row in answer.jobs]
    if format == "json":
        print_json(rows)
    else:
        shown = [
            {**row, "id": row["id"][:ID_CHARS], "tasks": f"{row['done']}/{row['total']}"} for row in rows
        ]
        print_table(shown, ("id", "name", "state", "tasks", "leader", "age_s"))
    for node in answer.silent:
        click.echo(f"peer {node} did not answer", err=True)


@click.command(cls=Command, short_help="How a job is.")
@click.argument("job", metavar="JOB")
@peer_options
def status(job: str, format: str, **where_to: Any) -> None:
    """Show how JOB, an id or its beginning, is; any peer knows."""
    import json

    with Where(**where_to).client() as client:
        view = client.view(client.find(job))
    if format == "json":
        click.echo(json.dumps(_status(view), indent=2))
        return
    for line in _status_lines(view):
        click.echo(line)


@click.command(cls=Command, short_help="Follow a job, and fetch its result.")
@click.argument("job", metavar="JOB")
@click.option("-o", "--output", metavar="DIR", help="Write parts into this directory.")
@click.option("--report", metavar="FILE", help="Write a summary as JSON.")
@click.option(
    "--timeout",
    "--wait",
    "timeout",
    type=Seconds(min=0.001),
    metavar="S",
    help="Wait so long; then exit with 4, and the job goes on.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@waiting_options
def attach(
    job: str,
    output: str | None,
    report: str | None,
    timeout: float | None,
    peer_timeout: float,
    quiet: bool,
    format: str,  # noqa: ARG001 - a listing's option, and part of every command that asks a peer
    **where_to: Any,
) -> int:
    """Follow JOB, an id or its beginning, as 'submit' does, and fetch its result."""
    from mapreduce.command import check_report
    from mapreduce.console import interruptible
    from mapreduce.progress import Reporter
    from p2p.handles import JobHandle

    if report is not None:
        check_report(report)
    try_output(output)
    where = Where(timeout=peer_timeout, **where_to)
    with interruptible(), where.client() as client, Reporter(quiet=quiet) as reporter:
        handle = JobHandle(client, client.find(job))
        given = {"output": output, "report": report, "timeout": timeout}
        return see_through(handle, given, reporter, label=f"job {handle.id[:ID_CHARS]}")


@click.command(cls=Command, short_help="Fetch a finished job's result.")
@click.argument("job", metavar="JOB")
@click.option("-o", "--output", metavar="DIR", help="Write parts into this directory.")
@peer_options
def result(job: str, output: str | None, format: str, **where_to: Any) -> None:  # noqa: ARG001
    """Fetch the result of JOB, an id or its beginning; without -o all parts go to stdout in order."""
    from mapreduce.outcome import JobStatus
    from mapreduce.outputs import OutputDirectory
    from p2p.handles import JobTimeout
    from p2p.job_client import failure_of

    if output is not None:
        OutputDirectory(output).check()
    with Where(**where_to).client() as client:
        view = client.view(client.find(job))
        if not view.state.is_final:
            raise JobTimeout(
                f"job {view.job[:ID_CHARS]} is still running: 'ringreduce attach {view.job[:ID_CHARS]}' waits"
            )
        if view.state is not JobStatus.COMMITTED:
            raise failure_of(view)
        fetch(client, view, output)


@click.command(cls=Command, short_help="End a job.")
@click.argument("job", metavar="JOB")
@peer_options
def cancel(job: str, format: str, **where_to: Any) -> int:  # noqa: ARG001
    """End JOB, an id or its beginning; what it has done so far is dropped."""
    from mapreduce.outcome import JobStatus
    from p2p.errors import NoPeerReached

    with Where(**where_to).client() as client:
        found = client.find(job)
        before = client.view(found)
        if before.state.is_final:
            done = before.state is JobStatus.CANCELLED
            line = f"job {found[:ID_CHARS]} has ended already: {before.state}"
            click.echo(line if done else f"error: {line}", err=True)
            return 0 if done else 2
        view = client.cancel(found)
    if view is None or not view.state.is_final:
        why = f": {view.waiting_for}" if view is not None and view.waiting_for else ""
        raise NoPeerReached(f"job {found[:ID_CHARS]} could not be cancelled yet, nobody leads it now{why}")
    click.echo(f"job {found[:ID_CHARS]} is {view.state}", err=True)
    return 0 if view.state is JobStatus.CANCELLED else 1


@click.command(cls=Command, short_help="What user code of a job has printed.")
@click.argument("job", metavar="JOB")
@peer_options
def logs(job: str, format: str, **where_to: Any) -> None:
    """Show what user code of JOB, an id or its beginning, has printed on each peer, the end of it."""
    with Where(**where_to).client() as client:
        whole = client.find(job)
        found = client.logs(whole)
        if not any(one.text for one in found):
            client.view(whole)  # a job that nobody knows is another thing than one that has printed nothing
    if format == "json":
        print_json([{"node": one.node, "text": one.text} for one in found])
        return
    for one in found:
        for line in one.text.splitlines():
            click.echo(f"{one.node[:8]} {line}")


# ---- how things are shown ----------------------------------------------------------------------------------


def _row(row: JobRow) -> dict[str, Any]:
    until = row.ended_at_s or time.time()
    return {
        "id": row.job,
        "name": row.name,
        "state": row.state.value,
        "leader": row.leader,
        "done": row.done,
        "total": max(row.total, 0),
        "born": row.born_at_s,
        "age_s": round(until - row.born_at_s, 1),
        "members": list(row.members),
    }


def _status(view: JobView) -> dict[str, Any]:
    from p2p.handles import QUORUM_LOST
    from p2p.job_client import report_of

    report = report_of(view)
    failure = None
    if view.failure is not None:
        failure = {
            "kind": view.failure.kind,
            "message": view.failure.message,
            "details": view.failure.details,
            "node": view.failure.node,
        }
    return {
        "id": view.job,
        "name": view.name,
        "state": view.state.value,
        "leader": view.leader,
        "epoch": view.epoch,
        "members": list(view.members),
        "stages": [
            {"name": stage.name, "done": stage.done, "total": stage.total if stage.total >= 0 else None}
            for stage in view.stages
        ],
        "counters": dict(view.counters),
        "condition": QUORUM_LOST if "quorum" in view.waiting_for else "",
        "waiting_for": view.waiting_for,
        "is_fresh": view.is_fresh,
        "failure": failure,
        "born": view.born_at_s,
        "ended": view.ended_at_s or None,
        **{
            name: report[name]
            for name in ("attempts", "maps_run_again", "leader_changes", "peers_lost", "events")
        },
    }


def _status_lines(view: JobView) -> Iterator[str]:
    yield f"job      {view.job}  {view.name}"
    yield f"state    {view.state}" + ("" if view.is_fresh else "  (as last heard: nobody leads it now)")
    yield f"leader   {view.leader or '-'}, takeovers: {view.totals.leader_changes}"
    yield f"group    {', '.join(view.members)}  (epoch {view.epoch})"
    if view.waiting_for:
        yield f"waits    {view.waiting_for}"
    for stage in view.stages:
        total = "?" if stage.total < 0 else stage.total
        yield f"stage    {stage.name}: {stage.done}/{total}"
    for name, count in view.counters.items():
        yield f"counter  {name} = {count:,}"
    if view.failure is not None:
        yield f"failure  {view.failure.message}"
        yield from view.failure.details.splitlines()
    for event in view.events:
        stamp = time.strftime("%H:%M:%S", time.localtime(event.at_s))
        yield f"event    {stamp} {event.kind}: {event.node} {event.text}"
