"""The commands about jobs on a swarm: submit, look, fetch, cancel.

Only click and the console are imported here; what a command needs is imported when it runs.  Results go to
stdout, everything else to stderr.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mapreduce.command import OUT_FORMATS, job_options
from mapreduce.console import Command
from p2p.command_options import (
    DEFAULT_ADDRESS,
    Seconds,
    key_source,
    peer_options,
    print_json,
    print_table,
    some_peer,
    split_addresses,
    waiting_options,
)

if TYPE_CHECKING:
    from mapreduce.progress import Reporter
    from p2p.handing_in import HandedIn
    from p2p.handles import JobHandle
    from p2p.job_client import JobClient
    from p2p.job_questions import JobRow, JobView

__all__ = ["attach", "cancel", "demo", "jobs", "logs", "result", "status", "submit"]

INTERRUPTED = 130
ID_CHARS = 12
# What of a job's log is worth a line while it is followed.
WORTH_TELLING = frozenset({"lost", "again", "failed", "quorum", "healed", "warning", "restarted", "moved"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Where:
    """Which swarm, and by which peers."""

    peer: str
    timeout: float
    keys: Path | None
    cluster: str | None
    token: str | None

    def client(self) -> JobClient:
        from p2p.job_client import JobClient

        keys = key_source(self.keys, self.cluster, self.token).load().keys
        return JobClient(keys, split_addresses(self.peer), timeout_s=self.timeout)


# ---- submit -----------------------------------------------------------------------------------------------


def _submit_parameters() -> list[click.Parameter]:
    return [
        click.Argument(["job_argument"], metavar="JOB"),
        click.Argument(["inputs"], metavar="INPUT…", nargs=-1, required=True),
        click.Option(
            ["--peer"],
            default=DEFAULT_ADDRESS,
            callback=some_peer,
            show_default=True,
            metavar="ADDR[,ADDR…]",
            help="The peer to hand it to; further ones where it does not answer.",
        ),
        *job_options(),
        click.Option(
            ["--out-format"],
            type=click.Choice(OUT_FORMATS),
            default="text",
            show_default=True,
            help="text is KEY<tab>VALUE.",
        ),
        click.Option(["--detach"], is_flag=True, help="Print the job's id and leave it running."),
        click.Option(
            ["--timeout"],
            type=Seconds(min=0.001),
            metavar="S",
            help="Wait so long; then exit with 4, and the job goes on.",
        ),
        click.Option(
            ["--replicas"],
            type=click.IntRange(1, 8),
            default=2,
            show_default=True,
            metavar="R",
            help="How many peers hold each intermediate output and each part.",
        ),
        click.Option(["--strict-replicas"], is_flag=True, help="Refuse to begin with fewer peers than R."),
        click.Option(
            ["--priority"],
            type=click.IntRange(-10, 10),
            default=0,
            show_default=True,
            help="Each step doubles the job's share of the slots.",
        ),
        click.Option(
            ["--ttl"],
            type=Seconds(min=1.0, max=30 * 24 * 3600.0),
            default=3600.0,
            show_default=True,
            metavar="S",
            help="How long the result is kept.",
        ),
        click.Option(["--encoding"], metavar="NAME", help="Of text inputs.  [default: utf-8]"),
        click.Option(["--errors"], metavar="NAME", help="For undecodable bytes: strict, replace, ignore, …"),
        click.Option(
            ["--on-bad-record"], metavar="fail|skip:N", help="Leave out and count up to N bad records."
        ),
        click.Option(["--keys"], type=click.Path(path_type=Path), help="Directory of the cluster's keys."),
        click.Option(["--cluster"], help="The cluster's name [default: that of the keys, or 'default']."),
        click.Option(["--token"], help="A token instead of key files."),
    ]


def _submit(job_argument: str, inputs: tuple[str, ...], **given: Any) -> int:
    from mapreduce import finding, loading
    from mapreduce.command import check_report, with_reading
    from mapreduce.console import interruptible
    from mapreduce.progress import Reporter

    if given["detach"]:
        _refuse_what_only_a_follower_does()
    if given["report"] is not None:
        check_report(given["report"])
    _try_output(given["output"])
    with contextlib.redirect_stdout(sys.stderr):  # a job file that prints must not print into the results
        job, code, params = finding.load(job_argument, given["param"])
        changed = with_reading(job, given["encoding"], given["errors"], given["on_bad_record"])
        if changed is not job:
            job, code = changed, loading.repack(changed, code)
    where = _Where(
        peer=given["peer"], timeout=3.0, keys=given["keys"], cluster=given["cluster"], token=given["token"]
    )
    with interruptible(), contextlib.ExitStack() as stack:
        reporter = stack.enter_context(Reporter(quiet=given["quiet"]))
        handle, where_read = _handed_in(where, job, code, params, list(inputs), given, reporter, stack)
        for warning in handle.warnings:
            reporter.message(f"warning: {warning}")
        if given["detach"]:
            click.echo(handle.id)
            return 0
        reporter.message(f"job {handle.id[:ID_CHARS]} is submitted; {where_read.where}")
        lives_on = not where_read.reads_stdin
        return _see_through(handle, given, reporter, label=job_argument, lives_without_us=lives_on)


def _refuse_what_only_a_follower_does() -> None:
    """Refuse options that --detach leaves without effect; a setting that was made for all commands may be."""
    from mapreduce.errors import UsageError

    context = click.get_current_context()
    for name, shown in (("output", "-o"), ("report", "--report"), ("timeout", "--timeout")):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{shown} has no effect with --detach: leave one of them out; "
                "'ringreduce attach ID' takes it later, and 'ringreduce result ID -o DIR' fetches the result"
            )


submit = Command(
    name="submit",
    callback=_submit,
    params=_submit_parameters(),
    short_help="Run a job on a swarm.",
    help="""Run a job on a swarm, follow it, and fetch its result.

    JOB and INPUT are as for 'ringreduce run'; ring:NAME is a file of the ring, see 'ringreduce put'.
    Inputs that all peers see are read in place; others are put on the ring first, until the job is over.
    Ctrl-C leaves the job running and says how to come back to it.
    """,
)


def _handed_in(
    where: _Where,
    job: Any,
    code: Any,
    params: Mapping[str, Any],
    inputs: list[str],
    given: Mapping[str, Any],
    reporter: Reporter,
    stack: contextlib.ExitStack,
) -> tuple[JobHandle, HandedIn]:
    from mapreduce.bundling import bundle
    from p2p.file_progress import FileProgress
    from p2p.handing_in import hand_in
    from p2p.handles import JobHandle

    began_at = time.monotonic()
    spooled = stack.enter_context(_standard_input()) if "-" in inputs else None
    client = stack.enter_context(where.client())
    with FileProgress("put", quiet=given["quiet"]) as progress:
        handed = hand_in(
            client,
            job,
            bundle(code),
            inputs,
            stdin_path=spooled,
            on_move=lambda moved: reporter.message(str(moved)),
            tell=progress.message,
            on_progress=progress.add,
            brings_stdin=given["detach"],
            partitions=given["partitions"],
            split_bytes=given["split_size"],
            params=params,
            out_format=given["out_format"],
            replicas=given["replicas"],
            strict_replicas=given["strict_replicas"],
            priority=given["priority"],
            ttl_s=given["ttl"],
        )
    answer, brought = handed.answer, () if given["detach"] else handed.brought
    handle = JobHandle(client, answer.job, warnings=answer.warnings, began_at=began_at, brought=brought)
    return handle, handed


@contextlib.contextmanager
def _standard_input() -> Iterator[str]:
    """Copy standard input to a file: peers read it by ranges, and perhaps more than once."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ringreduce-stdin-") as directory:
        path = os.path.join(directory, "stdin")
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        yield path


# ---- following --------------------------------------------------------------------------------------------


def _see_through(
    handle: JobHandle,
    given: Mapping[str, Any],
    reporter: Reporter,
    *,
    label: str,
    lives_without_us: bool = True,
) -> int:
    """Follow a job to its end, fetch its result, tell what it did."""
    from mapreduce.command import summary, write_report
    from mapreduce.errors import JobError
    from mapreduce.outcome import JobStatus
    from p2p.errors import PeerError
    from p2p.job_client import failure_of

    try:
        view = _followed(handle, given.get("timeout"), reporter)
    except KeyboardInterrupt:
        if not lives_without_us:
            handle.cancel()
            click.echo(
                f"job {handle.id[:ID_CHARS]} is cancelled: it read this command's standard input", err=True
            )
            return INTERRUPTED
        click.echo(
            f"detached: job {handle.id[:ID_CHARS]} goes on; come back with"
            f"  ringreduce attach {handle.id[:ID_CHARS]}",
            err=True,
        )
        return INTERRUPTED
    report = handle.report()
    if given.get("report") is not None:
        write_report(given["report"], report)
    if view.state is not JobStatus.COMMITTED:
        raise failure_of(view)
    try:
        _fetch(handle.client, view, given.get("output"))
    except BrokenPipeError:
        raise
    except (JobError, PeerError, OSError) as error:
        error.add_note(
            f"the job is done; fetch its result with  ringreduce result {handle.id[:ID_CHARS]} -o DIR"
        )
        raise
    lines = summary(label, report, given.get("output"))
    if report["leader_changes"] or report["peers_lost"]:
        lines += (
            f"\n  {_counted(report['peers_lost'], 'peer')} lost, "
            f"{_counted(report['leader_changes'], 'takeover')}, maps run again: "
            f"{report['maps_run_again']}"
        )
    reporter.message(lines)
    return 0


def _followed(handle: JobHandle, timeout_s: float | None, reporter: Reporter) -> JobView:
    """Show what happens until the job has ended."""
    led = False
    for event in handle.events(timeout_s):
        if event.kind == "progress" and event.view is not None:
            progress = _progress(event.view)
            if progress is not None:
                reporter.update(progress)
        elif event.kind == "waiting":
            reporter.message(event.text)
        elif event.kind == "leader":
            if led:
                reporter.message(f"{event.node} {event.text}")
            led = True
        elif event.kind in WORTH_TELLING:
            reporter.message(f"{event.node} {event.text}".strip())
    return handle.status()


def _progress(view: JobView) -> Any:
    from mapreduce.progress import Progress

    for stage in view.stages:
        if stage.total < 0 or stage.done < stage.total:
            kind, _, step = stage.name.partition(" ")
            return Progress(stage=kind, step=step, done=stage.done, total=max(stage.total, 0))
    return None


def _try_output(output: str | None) -> None:
    """Make the output directory and remove it again: a job is not to run for what cannot be written."""
    from mapreduce.outputs import OutputDirectory

    if output is not None:
        target = OutputDirectory(output)
        target.prepare()
        target.abort()


def _fetch(client: JobClient, view: JobView, output: str | None) -> None:
    """Bring the parts into a directory, or to stdout."""
    from mapreduce.outputs import OutputDirectory, writing
    from p2p.handles import emptied

    if output is None:
        _fetch_to_stdout(client, view)
        return
    target = OutputDirectory(output)
    target.prepare()
    try:
        for row in client.parts(view.job):
            path = target.attempt_path(row.part, 1)
            with writing(path), open(path, "wb") as file:
                client.write_part(view.job, row, file.write, emptied(file))
            target.commit(row.part, 1)
        target.finish()
    except BaseException:
        target.abort()
        raise


def _fetch_to_stdout(client: JobClient, view: JobView) -> None:
    """Write each part when all of it is here and right: half a part on stdout could not be taken back."""
    import tempfile

    from mapreduce.command import told_if_full
    from p2p.handles import emptied

    out = sys.stdout.buffer
    for row in client.parts(view.job):
        with tempfile.TemporaryFile() as file:
            client.write_part(view.job, row, file.write, emptied(file))
            file.seek(0)
            with told_if_full():
                while block := file.read(1 << 20):
                    out.write(block)
    with told_if_full():
        out.flush()


# ---- looking ----------------------------------------------------------------------------------------------


@click.command(cls=Command, short_help="List the jobs of a swarm.")
@peer_options
def jobs(format: str, **where_to: Any) -> None:
    """List the jobs that any peer knows of, youngest first."""
    with _Where(**where_to).client() as client:
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

    with _Where(**where_to).client() as client:
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
    _try_output(output)
    where = _Where(timeout=peer_timeout, **where_to)
    with interruptible(), where.client() as client, Reporter(quiet=quiet) as reporter:
        handle = JobHandle(client, client.find(job))
        given = {"output": output, "report": report, "timeout": timeout}
        return _see_through(handle, given, reporter, label=f"job {handle.id[:ID_CHARS]}")


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
    with _Where(**where_to).client() as client:
        view = client.view(client.find(job))
        if not view.state.is_final:
            raise JobTimeout(
                f"job {view.job[:ID_CHARS]} is still running: 'ringreduce attach {view.job[:ID_CHARS]}' waits"
            )
        if view.state is not JobStatus.COMMITTED:
            raise failure_of(view)
        _fetch(client, view, output)


@click.command(cls=Command, short_help="End a job.")
@click.argument("job", metavar="JOB")
@peer_options
def cancel(job: str, format: str, **where_to: Any) -> int:  # noqa: ARG001
    """End JOB, an id or its beginning; what it has done so far is dropped."""
    from mapreduce.outcome import JobStatus
    from p2p.errors import NoPeerReached

    with _Where(**where_to).client() as client:
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
    with _Where(**where_to).client() as client:
        found = client.logs(client.find(job))
    if format == "json":
        print_json([{"node": one.node, "text": one.text} for one in found])
        return
    for one in found:
        for line in one.text.splitlines():
            click.echo(f"{one.node[:8]} {line}")


# ---- showing off -------------------------------------------------------------------------------------------


@click.command(cls=Command, short_help="A swarm loses its leader in the midst of a job.")
@click.option("--peers", type=click.IntRange(3, 32), default=4, show_default=True, help="How many peers.")
def demo(peers: int) -> None:
    """Show a swarm at work on this machine.

    It starts real peer processes, counts the words of the Python standard library, kills the job's leader
    with SIGKILL on the way, and compares the result with a single process's.
    """
    from p2p.demo import run_demo

    run_demo(peers)


# ---- how things are shown ---------------------------------------------------------------------------------


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


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
