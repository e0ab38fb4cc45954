"""The command that hands a job to a swarm.

A job is read here, as for `run`: it is found, loaded and packed, its inputs are planned and those that peers
do not see are put on the ring.  Then it is followed (`p2p.following`), or left to itself.

Only what its options need is imported here; what the command needs is imported when it runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mapreduce.command import job_options, reading_options
from mapreduce.console import Command
from p2p.command_options import DEFAULT_ADDRESS, Seconds, Where, some_peer
from p2p.following import ID_CHARS, see_through
from p2p.result_output import try_output

if TYPE_CHECKING:
    from mapreduce.progress import Reporter
    from p2p.handing_in import HandedIn
    from p2p.handles import JobHandle

__all__ = ["submit"]


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
        *reading_options(),
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
    try_output(given["output"])
    with contextlib.redirect_stdout(sys.stderr):  # a job file that prints must not print into the results
        job, code, params = finding.load(job_argument, given["param"])
        changed = with_reading(job, given["encoding"], given["errors"], given["on_bad_record"])
        if changed is not job:
            job, code = changed, loading.repack(changed, code)
    where = Where(
        peer=given["peer"], timeout=3.0, keys=given["keys"], cluster=given["cluster"], token=given["token"]
    )
    with interruptible(), contextlib.ExitStack() as stack:
        reporter = stack.enter_context(Reporter(quiet=given["quiet"]))
        given["name"] = loading.name_of(job_argument)
        handle, where_read = _handed_in(where, job, code, params, list(inputs), given, reporter, stack)
        for warning in handle.warnings:
            reporter.message(f"warning: {warning}")
        if given["detach"]:
            click.echo(handle.id)
            return 0
        reporter.message(f"job {handle.id[:ID_CHARS]} is submitted; {where_read.where}")
        lives_on = not where_read.reads_stdin
        return see_through(handle, given, reporter, label=job_argument, lives_without_us=lives_on)


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
    where: Where,
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
            name=given["name"],
            partitions=given["partitions"],
            split_bytes=given["split_size"],
            params=params,
            out_format=given["out_format"],
            replicas=given["replicas"],
            strict_replicas=given["strict_replicas"],
            priority=given["priority"],
            ttl_s=given["ttl"],
        )
    from p2p.handles import JobHandle  # while the peers begin with the job

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
