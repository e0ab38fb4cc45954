"""Following a job at a terminal: what `submit` and `attach` do until the job has ended.

What is worth a line is told while the job runs; then its result is brought and a summary shown.  An interrupt
leaves the job running and says how to come back to it, unless the job reads what only this command can give.

Only click and the standard library are imported here; what is needed of a swarm is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mapreduce.progress import Reporter
    from p2p.handles import JobHandle
    from p2p.job_questions import JobView

__all__ = ["ID_CHARS", "counted", "see_through"]

INTERRUPTED = 130
ID_CHARS = 12
"""How much of a job's id is shown to people."""

# What of a job's log is worth a line while it is followed.
WORTH_TELLING = frozenset({"lost", "again", "failed", "quorum", "healed", "warning", "restarted", "moved"})


def see_through(
    handle: JobHandle,
    given: Mapping[str, Any],
    reporter: Reporter,
    *,
    label: str,
    lives_without_us: bool = True,
) -> int:
    """Follow a job to its end, fetch its result, tell what it did.

    Args:
        handle: the job.
        given: the command's options, of which `output`, `report` and `timeout` count.
        reporter: what shows progress.
        label: how the job is called in the summary.
        lives_without_us: whether the job goes on when this command is interrupted.

    Returns:
        The exit code.

    Raises:
        JobError, PeerError: the job failed, nobody answers, or time is over.
    """
    from mapreduce.command import summary, write_report
    from mapreduce.errors import JobError
    from mapreduce.outcome import JobStatus
    from p2p.errors import PeerError
    from p2p.job_client import failure_of
    from p2p.result_output import fetch

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
        fetch(handle.client, view, given.get("output"))
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
            f"\n  {counted(report['peers_lost'], 'peer')} lost, "
            f"{counted(report['leader_changes'], 'takeover')}, maps run again: "
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


def counted(count: int, noun: str) -> str:
    """Say how many there are of something, one in the singular."""
    return f"{count} {noun}{'s' if count != 1 else ''}"
