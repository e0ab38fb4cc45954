"""What a running job shows: a bar on a terminal, a line a second elsewhere, nothing when told to be quiet.

The engine calls `Reporter.update` when something has changed and `Reporter.message` for a line that user code
printed.  Both end up on stderr through one object, so a message never tears the bar.  Nothing is shown in
the first moments: a job that is over by then needs no bar, and should not wait for the import of one.

⚙ This module reads the clock and writes to a stream.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

BAR_AFTER_S = 0.3
LINE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is.

    Attributes:
        stage: "sample", "map" or "reduce".
        step: the name of the running step.
        done, total: tasks of this stage.
        bytes_done, bytes_total: input of this stage; 0 where it is not known.
        running: tasks that run now.
        failed_attempts: attempts that failed so far and were, or will be, made again.
        records: records that this stage has read, as far as its finished tasks have told.
        status: the last line that user code gave to `task.status`, or "".
    """

    stage: str
    step: str
    done: int
    total: int
    bytes_done: int = 0
    bytes_total: int = 0
    running: int = 0
    failed_attempts: int = 0
    records: int = 0
    status: str = ""

    @property
    def fraction(self) -> float:
        """The share that is done, 0 to 1: of the bytes where they are known, else of the tasks."""
        if self.bytes_total > 0:
            return min(1.0, self.bytes_done / self.bytes_total)
        return self.done / self.total if self.total else 1.0


def size_text(size_bytes: float) -> str:
    """Return a number of bytes for people: "17.0 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def line(progress: Progress, elapsed_s: float) -> str:
    """Return a job's progress as one line of text."""
    parts = [f"{progress.done}/{progress.total} tasks", f"{progress.fraction:.0%}"]
    if progress.bytes_total:
        parts.append(f"{size_text(progress.bytes_done)} of {size_text(progress.bytes_total)}")
    if progress.records:
        parts.append(f"{progress.records:,} records")
    if progress.running:
        parts.append(f"{progress.running} running")
    if progress.failed_attempts:
        parts.append(f"{progress.failed_attempts} failed attempts")
    parts.append(f"{elapsed_s:.0f} s")
    return (
        f"{progress.stage} {progress.step}: "
        + ", ".join(parts)
        + (f" [{progress.status}]" if progress.status else "")
    )


class Reporter:
    """Shows a job's progress and messages; use it as a context manager, so that the bar is taken down.

    Args:
        stream: where to write; default: stderr.
        quiet: show nothing at all; errors are not this object's business.
        clock: gives seconds, only ever compared with each other.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._clock = clock
        self._started_s = clock()
        self._next_line_s = self._started_s + LINE_EVERY_S
        self._terminal = not quiet and self._stream.isatty()
        self._bar: _Bar | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, progress: Progress) -> None:
        """Show how far the job is, if it is time to."""
        if self._quiet:
            return
        now_s = self._clock()
        if self._terminal:
            if self._bar is None and now_s - self._started_s >= BAR_AFTER_S:
                self._bar = _Bar(self._stream)
            if self._bar is not None:
                self._bar.update(progress, now_s - self._started_s)
        elif now_s >= self._next_line_s:
            self._next_line_s = now_s + LINE_EVERY_S
            self.message(line(progress, now_s - self._started_s))

    def message(self, text: str) -> None:
        """Show a line, or several, above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.message(text)
        else:
            self._stream.write(text.rstrip("\n") + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Take the bar down; messages may still follow."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Bar:
    """A bar that is drawn when it is told something, without a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichBar

        self._console: Console = Console(file=stream, highlight=False)
        self._bar: RichBar = RichBar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[facts]}", markup=False),
            console=self._console,
            auto_refresh=False,
            transient=True,
            # Nothing else writes to these streams meanwhile: see the head of the module.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._stage = ""
        self._task: TaskID | None = None
        self._bar.start()

    def update(self, progress: Progress, elapsed_s: float) -> None:
        facts = [f"{progress.done}/{progress.total} tasks"]
        if progress.bytes_total:
            facts.append(f"{size_text(progress.bytes_done)} of {size_text(progress.bytes_total)}")
        if progress.failed_attempts:
            facts.append(f"{progress.failed_attempts} failed attempts")
        facts.append(f"{elapsed_s:.0f} s")
        if progress.status:
            facts.append(progress.status)
        stage = f"{progress.stage} {progress.step}"
        # A bar of its own for each stage, so that none runs backwards.
        if self._task is None or self._stage != stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage = stage
            self._task = self._bar.add_task(stage, total=1.0, facts="")
        self._bar.update(self._task, completed=progress.fraction, facts=", ".join(facts))
        self._bar.refresh()

    def message(self, text: str) -> None:
        self._console.print(text.rstrip("\n"), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()
