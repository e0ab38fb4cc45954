"""How our commands end: one line for a mistake, an exit code that scripts can rely on, no traceback.

Every command of ringreduce is a `Command` (or a group made with `Guarded`).  It finds its settings as
`mapreduce.settings` says, and whatever it raises becomes what section "exit codes" of the README promises:

    0 done · 1 the job failed · 2 bad usage or input · 3 no peer or no quorum · 4 timed out · 130 interrupted

An error type takes part by having an integer `exit_code`; that is all this module knows of the packages
above it.  An exception without one is either the machine's (OSError, MemoryError: exit 1, in its own words)
or our own bug, and says so.

A closed pipe (`ringreduce run ... | head`) is not an error: the reader has what it wanted.

⚙ This module sets signal handlers, reads the clock and writes to the standard streams.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from mapreduce import settings
from mapreduce.errors import UsageError

DONE, FAILED, INTERRUPTED = 0, 1, 130
UNREAD = 128 + signal.SIGPIPE  # what a shell says of a command that died because nobody read its output

# After the first interruption the job is being wound up, in a bounded time; an impatient second Ctrl-C
# would only leave things behind.  Later than this it is believed again.
WIND_UP_S = 3.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on only
    """A number of bytes on the command line, see `settings.parse_size`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes, or fail as click expects."""
        try:
            return settings.parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Guarded(click.Command):
    """A command whose every end is one of the exit codes above."""

    def main(  # type: ignore[override]  # click's overloads promise what exit codes replace here
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> int:
        """Run the command as a whole process: explain what went wrong and exit.

        Returns:
            The exit code, when `standalone_mode` is off; otherwise it exits with it.
        """
        _fill_closed_streams()
        run = super().main
        code = exit_code_of(lambda: run(args, prog_name, complete_var, standalone_mode=False, **extra))
        if standalone_mode:
            sys.exit(code)
        return code


class Command(Guarded):
    """A command that takes its settings from flags, environment and file, and knows `--traceback`."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        if all(parameter.name != "traceback" for parameter in self.params):
            self.params.append(_traceback_option())
        for parameter in self.params:
            if isinstance(parameter, click.Option) and parameter.envvar is None and parameter.name:
                parameter.envvar = settings.environment_variable(parameter.name)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments over the settings file's values."""
        options = {p.name: p for p in self.params if isinstance(p, click.Option) and p.name}
        found = settings.from_file(self.name or "", options)
        for name, value in found.items():
            if options[name].multiple and isinstance(value, str):
                found[name] = [value]  # one of what may be several
            elif isinstance(value, list) != options[name].multiple:
                wanted = "a list, or a table" if options[name].multiple else "a single value"
                raise UsageError(f"{settings.SETTINGS_FILE}: {name} = {value!r}: expected {wanted}")
        extra["default_map"] = found
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.BadParameter as error:
            origin = _origin(error)
            if not origin:
                raise
            raise click.BadParameter(error.message + origin, error.ctx, error.param) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; with `--traceback` show where an error came from before it is explained."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Caught here because click's own answer, further out, is exit code 1.
            _abandon_stdout()
            return DONE
        except Exception as error:
            if ctx.meta.get("ringreduce.traceback") and not isinstance(
                error, click.exceptions.Exit | click.Abort
            ):
                import traceback

                traceback.print_exc()
            raise


def _traceback_option() -> click.Option:
    def remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        ctx.meta["ringreduce.traceback"] = value

    return click.Option(
        ["--traceback"],
        is_flag=True,
        expose_value=False,
        callback=remember,
        envvar=["RINGREDUCE_TRACEBACK", "RINGREDUCE_DEBUG"],
        help="Show ringreduce's own traceback with an error.",
    )


def _origin(error: click.BadParameter) -> str:
    """Say which variable or file a bad value came from; the command line needs no saying."""
    if error.ctx is None or error.param is None or error.param.name is None:
        return ""
    source = error.ctx.get_parameter_source(error.param.name)
    if source is click.core.ParameterSource.ENVIRONMENT:
        return f" (from {settings.environment_variable(error.param.name)})"
    if source is click.core.ParameterSource.DEFAULT_MAP:
        return f" (from {settings.SETTINGS_FILE})"
    return ""


def exit_code_of(call: Callable[[], Any]) -> int:
    """Call something, explain on stderr what it raises, and return the exit code that stands for it.

    A call that returns an integer has chosen its exit code itself.
    """
    try:
        result = while_read(call)
    except (KeyboardInterrupt, click.Abort):
        return _told("interrupted", INTERRUPTED)
    except click.ClickException as error:
        with contextlib.suppress(BrokenPipeError):
            error.show()
        return error.exit_code
    except Exception as error:
        return _explained(error)
    return result if isinstance(result, int) else DONE


def while_read(call: Callable[[], Any], *, unread: int = DONE) -> Any:
    """Call something that prints, to its end or until the reader of stdout leaves; that is no error.

    Args:
        call: prints to stdout, which is flushed behind it.
        unread: what to return if the reader has left. A command that gives a verdict has not given it then,
            and says so with `UNREAD`.

    Returns:
        What the call returned.

    Raises:
        Exception: whatever else the call raises.
    """
    try:
        result = call()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        return unread
    return result


def _explained(error: Exception) -> int:
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        if code == INTERRUPTED:
            return _told(str(error) or "interrupted", code)
        return _told(f"error: {error}", code, details_of(error))
    if isinstance(error, MemoryError):
        return _told("error: out of memory", FAILED)
    if isinstance(error, OSError):
        return _told(f"error: {_said_by_system(error)}", FAILED)
    return _told(
        f"error: {type(error).__name__}: {error}\n"
        "This is a bug in ringreduce, not in your job: RINGREDUCE_DEBUG=1 shows where it happened.",
        FAILED,
    )


def _said_by_system(error: OSError) -> str:
    """Say what a call to the system has met, and where, as far as that is known."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_printed = frame.f_code is click.echo.__code__ and not frame.f_locals["err"]
    if is_printed or frame.f_code is while_read.__code__:  # which calls, and flushes
        return f"cannot write to standard output: {reason}"
    return reason


def details_of(error: BaseException) -> str:
    """Return what an error has to show below its one line: the user's traceback, a task's last output."""
    details = str(getattr(error, "details", ""))
    return "\n".join([*([details] if details else []), *getattr(error, "__notes__", [])])


def _told(line: str, code: int, details: str = "") -> int:
    with contextlib.suppress(OSError):  # nobody listens on stderr: the exit code still tells
        click.echo(line, err=True)
        if details:
            click.echo(details.rstrip("\n"), err=True)
    return code


def _abandon_stdout() -> None:
    """Let the interpreter flush its last bytes into nothing when the reader of stdout has left."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # a stream in memory
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _fill_closed_streams() -> None:
    """Occupy descriptors 0 to 2 where our caller has closed them (`2>&-`).

    Else the next file that is opened would get such a number, and whatever a library prints.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP interrupt as Ctrl-C does: by KeyboardInterrupt, once.

    A signal that the caller had ignored (nohup, a shell's background job) stays ignored.
    """
    first_at_s: float | None = None

    def interrupt(_signal: int, _frame: Any) -> None:
        nonlocal first_at_s
        now_s = time.monotonic()
        if first_at_s is not None and now_s - first_at_s < WIND_UP_S:
            return
        first_at_s = now_s
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
    except ValueError:  # not the main thread: whoever owns that one decides
        pass
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block no interruption arrives; one that comes meanwhile is delivered behind it."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
