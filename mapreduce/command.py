"""`ringreduce run`: a job on this machine's cores.

The command stands in this package because `job.main()` is the same command, and this package imports nothing
of the peers.  What it adds to `mapreduce.local.run` is what a shell expects: results on stdout and everything
else on stderr, settings from environment and file, exit codes, a report, and nothing left behind.

Without `-o` the parts are written to a private directory and copied to stdout when the job is done, so that a
job that fails half-way prints nothing that could be taken for its result.

⚙ This module writes files and reads the command line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from mapreduce import finding, loading
from mapreduce.console import Command, Size, interruptible, undisturbed
from mapreduce.errors import EnvironmentFailed, InputError, OutputError, UsageError
from mapreduce.job import Job
from mapreduce.plan import DEFAULT_SPLIT_BYTES
from mapreduce.progress import Reporter, size_text

if TYPE_CHECKING:
    from mapreduce.local import Result

Source = Callable[[Mapping[str, str]], tuple[Job, loading.Code, dict[str, Any]]]

OUT_FORMATS = ("text", "jsonl", "msgpack")
COUNTERS_SHOWN = 20
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `ringreduce run`, as the command line gives them."""

    output: str | None
    workers: int | None
    partitions: int | None
    split_size: int
    out_format: str
    param: dict[str, str]
    report: str | None
    memory: int | None
    encoding: str | None
    errors: str | None
    on_bad_record: str | None
    temp_dir: str | None
    quiet: bool


# -- the command line ---------------------------------------------------------------------------------


def parse_pairs(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Turn repeated K=V into a mapping; a click callback."""
    pairs = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        pairs[name.strip()] = value
    return pairs


class _JobArgument(click.Argument):
    """JOB; where it is missing, the message says what there is to run."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Take the value, or list the examples."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter:
            raise click.UsageError(
                "JOB is missing: a Python file, a module, or one of the examples:\n\n"
                + finding.examples_text(),
                ctx,
            ) from None


class _InputsArgument(click.Argument):
    """INPUT…; where it is missing, the message says how to read standard input."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Take the value, or say what an input is."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter:
            raise click.UsageError(
                "INPUT is missing: name files, directories, globs or URLs; - reads standard input", ctx
            ) from None


# What `run` and `submit` share: how a job is named and shaped.
def job_options() -> list[click.Parameter]:
    """Return the options that say what a job is to do, wherever it runs."""
    return [
        click.Option(["-o", "--output"], metavar="DIR", help="Write parts into this directory."),
        click.Option(
            ["-r", "--partitions"],
            type=click.IntRange(1, 100_000),
            metavar="N",
            help="Number of reduce tasks and parts.  [default: follows from the input's size]",
        ),
        click.Option(
            ["--split-size"],
            type=Size(),
            default=DEFAULT_SPLIT_BYTES,
            metavar="SIZE",
            help="How much input a map task reads.  [default: 32MiB]",
        ),
        click.Option(
            ["--param"],
            multiple=True,
            metavar="K=V",
            callback=parse_pairs,
            help="A parameter of the job, found in task.params; may be repeated.",
        ),
        click.Option(["--report"], metavar="FILE", help="Write a summary as JSON."),
        click.Option(["-q", "--quiet"], is_flag=True, help="No progress and no summary."),
        click.Option(
            ["--out-format"],
            type=click.Choice(OUT_FORMATS),
            default="text",
            show_default=True,
            help="text is KEY<tab>VALUE.",
        ),
    ]


def reading_options() -> list[click.Parameter]:
    """Return the options that say how a job reads its records, wherever it runs; see `with_reading`."""
    return [
        click.Option(["--encoding"], metavar="NAME", help="Of text inputs.  [default: utf-8]"),
        click.Option(["--errors"], metavar="NAME", help="For undecodable bytes: strict, replace, ignore, …"),
        click.Option(
            ["--on-bad-record"], metavar="fail|skip:N", help="Leave out and count up to N bad records."
        ),
    ]


def _run_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["-j", "--workers"],
            type=click.IntRange(1, 1024),
            metavar="N",
            help="Worker processes.  [default: one a core]",
        ),
        *job_options(),
        click.Option(["--memory"], type=Size(), metavar="SIZE", help="Limit of each task; beyond it, spill."),
        *reading_options(),
        click.Option(["--temp-dir"], metavar="DIR", help="For intermediate files."),
    ]


def _run_named(job_argument: str, inputs: tuple[str, ...], **given: Any) -> None:
    execute(
        lambda params: finding.load(job_argument, params),
        list(inputs),
        RunOptions(**given),
        label=job_argument,
    )


run = Command(
    name="run",
    callback=_run_named,
    params=[
        _JobArgument(["job_argument"], metavar="JOB"),
        _InputsArgument(["inputs"], metavar="INPUT…", nargs=-1, required=True),
        *_run_options(),
    ],
    short_help="Run a job on this machine's cores.",
    help="""Run a job on this machine's cores.

    JOB is a Python file, a module or the name of a shipped example; JOB:NAME picks one of several jobs.
    INPUT is a file, a directory, a glob, an fsspec URL, or - for standard input.

    SIZE is a number of bytes, or has a unit: 100k, 32MiB, 1G.
    """,
)


def run_as_script(job: Job) -> None:
    """Be the command line of the running script: `python FILE INPUT…` is `ringreduce run FILE INPUT…`.

    While the script is being loaded as a job file, by us, this does nothing: the guard
    `if __name__ == "__main__":` may be left out.
    """
    if loading.is_loading():
        return
    label = os.path.basename(sys.argv[0]) or job.name

    def run_own(inputs: tuple[str, ...], **given: Any) -> None:
        execute(lambda params: finding.load_own(job, params), list(inputs), RunOptions(**given), label=label)

    command = Command(
        name="run", callback=run_own, params=run.params[1:], help=f"Run {label} on this machine."
    )
    command.main(prog_name=label)


# -- running ------------------------------------------------------------------------------------------


def execute(source: Source, inputs: list[str], options: RunOptions, *, label: str) -> None:
    """Run a job as `ringreduce run` does.

    Args:
        source: gives the job for the command line's parameters.
        inputs: as the user wrote them.
        options: the command's.
        label: what to call the job in the summary.

    Raises:
        JobError: what went wrong; nothing was written to stdout.
        BrokenPipeError: the reader of stdout has left.
        KeyboardInterrupt: the user, or a signal, wants to end it.
    """
    if options.report is not None:
        check_report(options.report)
    if options.output is None and sys.stdout is None:
        raise OutputError("standard output is closed; name a directory for the parts with -o")
    if "-" in inputs and sys.stdin is None:
        raise InputError("-: standard input is closed; name a file")
    with (
        _same_directory(),
        contextlib.redirect_stdout(sys.stderr),
    ):  # a job file that prints must not print into the results
        job, code, params = source(options.param)
        changed = with_reading(job, options.encoding, options.errors, options.on_bad_record)
        if changed is not job:
            job, code = changed, loading.repack(changed, code)
    with interruptible(), contextlib.ExitStack() as stack:
        output = options.output
        if output is None:
            output = os.path.join(stack.enter_context(_private_directory(options.temp_dir)), "out")
        with Reporter(quiet=options.quiet) as reporter:
            result = _run(job, code, params, inputs, output, options, reporter)
        with contextlib.closing(result):
            report = result.report()
        if options.report is not None:  # before the results: their reader may leave early
            write_report(options.report, report)
        if options.output is None:
            with told_if_full():
                _copy_parts(output)
        reporter.message(summary(label, report, options.output))


@contextlib.contextmanager
def _same_directory() -> Iterator[None]:
    """Come back to the current directory: the paths of a command line count from where it was written."""
    try:
        before = os.open(".", os.O_RDONLY)
    except OSError:  # it is not ours to read: then relative paths have to bear what the job file does
        yield
        return
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _run(
    job: Job,
    code: loading.Code,
    params: dict[str, Any],
    inputs: list[str],
    output: str,
    options: RunOptions,
    reporter: Reporter,
) -> Result:
    from mapreduce import local

    return local.run(
        job,
        inputs,
        workers=options.workers,
        partitions=options.partitions,
        split_bytes=options.split_size,
        params=params,
        output=output,
        out_format=options.out_format,
        memory_bytes=options.memory,
        temp_dir=options.temp_dir,
        code=code,
        on_progress=reporter.update,
        on_message=reporter.message,
    )


@contextlib.contextmanager
def _private_directory(parent: str | None) -> Iterator[str]:
    from mapreduce.work_directory import WorkDirectory

    work = WorkDirectory(parent)
    try:
        yield work.path
    finally:
        with undisturbed():
            work.remove()


def with_reading(job: Job, encoding: str | None, errors: str | None, on_bad_record: str | None) -> Job:
    """Return the job with another way to read text, and to meet bad records.

    Raises:
        UsageError: a step's reader decodes no text.
        JobDefinitionError: there is no such encoding or error handler, or `on_bad_record` is neither "fail"
            nor "skip:N".
    """
    given = {"encoding": encoding, "errors": errors}
    changes = {option: value for option, value in given.items() if value is not None}
    if not changes and on_bad_record is None:
        return job
    steps = {}
    for name, step in job.steps.items():
        if changes and not step.after:
            step = replace(step, reader=_reader_with(name, step.reader, changes))
        steps[name] = replace(step, on_bad_record=on_bad_record) if on_bad_record is not None else step
    return replace(job, steps=steps)


def _reader_with(step: str, reader: Any, changes: Mapping[str, str]) -> Any:
    if reader is None:
        from mapreduce.readers import Text

        reader = Text()
    known = {field.name for field in fields(reader)} if is_dataclass(reader) else set()
    for option in changes:
        if option not in known:
            raise UsageError(f"--{option}: the reader of step {step!r} takes no {option}")
    return replace(reader, **changes)


@contextlib.contextmanager
def told_if_full() -> Iterator[None]:
    """Within the block an OSError is one of standard output, and is told as such; a closed pipe stays one.

    Raises:
        EnvironmentFailed: nothing more can be written to it.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EnvironmentFailed(f"cannot write to standard output: {error.strerror}") from None


def _copy_parts(directory: str) -> None:
    """Copy all parts to stdout, one after the other."""
    out = sys.stdout.buffer
    parts = [entry for entry in os.listdir(directory) if entry.startswith("part-")]
    # A map-only job may have more parts than five digits can number: the longer name is the later one.
    for name in sorted(parts, key=lambda name: (len(name), name)):
        with open(os.path.join(directory, name), "rb") as part:
            while block := part.read(_COPY_BYTES):
                out.write(block)
    out.flush()


# -- report and summary -------------------------------------------------------------------------------


def check_report(path: str) -> None:
    """Refuse, before any work, a report that could not be written after it.

    Raises:
        OutputError: it is a directory, or lies in one that is missing or not writable.
    """
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise OutputError(f"--report {path}: that is a directory")
    if not os.path.isdir(directory):
        raise OutputError(f"--report {path}: there is no directory {directory}")
    if not os.access(path if os.path.exists(path) and not os.path.isfile(path) else directory, os.W_OK):
        raise OutputError(f"--report {path}: not writable")


def write_report(path: str, report: Mapping[str, Any]) -> None:
    """Write a report as JSON, so that a reader sees all of it or the file from before.

    Raises:
        EnvironmentFailed: the disk is full, or the directory has gone since it was checked.
    """
    import json

    text = json.dumps(report, indent=2) + "\n"
    # A pipe or a device cannot be renamed over.
    whole = not os.path.exists(path) or os.path.isfile(path)
    target = f"{path}.{os.getpid()}.tmp" if whole else path
    try:
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
        if whole:
            os.replace(target, path)
    except OSError as error:
        if whole:
            with contextlib.suppress(OSError):
                os.unlink(target)
        raise EnvironmentFailed(f"cannot write the report {path}: {error.strerror}") from None


def summary(label: str, report: Mapping[str, Any], output: str | None) -> str:
    """Return what a finished job says of itself: a line, and its counters if it has any."""
    tasks = [
        f"{report[key]} {name} task{'s' if report[key] != 1 else ''}"
        for key, name in (("map_tasks", "map"), ("reduce_tasks", "reduce"))
        if report[key]
    ]
    parts = [f"{size_text(report['input_bytes'])} in {report['wall_s']:.2f} s", *tasks]
    # Not what is left of `attempts`: looking at samples takes attempts too.
    if failed := report["failed_attempts"]:
        parts.append(f"{failed} failed attempt{'s' if failed != 1 else ''}")
    lines = [f"{label}: {', '.join(parts)}" + (f" -> {output}" if output is not None else "")]
    counters = sorted(report["counters"].items())
    lines += [f"  {name} = {value:,}" for name, value in counters[:COUNTERS_SHOWN]]
    if len(counters) > COUNTERS_SHOWN:
        lines.append(f"  and {len(counters) - COUNTERS_SHOWN} more counters, in --report")
    return "\n".join(lines)
