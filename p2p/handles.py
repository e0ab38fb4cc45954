"""A job on a swarm, held from outside: watch it, wait for it, take its result.

A handle has a connection of its own, so that several can be followed at once; it ends with the handle and its
result, or earlier by `close` or at the end of a `with` block.  Nothing of the job depends on it: a handle
that is closed, or dies, leaves the job running.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from mapreduce.outcome import NOBODY, EventRecord, JobStatus
from mapreduce.records import Pair
from membership.view import NodeId
from p2p import job_questions as q
from p2p.errors import PeerError
from p2p.handing_in import take_back
from p2p.job_client import JobClient, Moved, ResultGone, failure_of, report_of

__all__ = [
    "QUORUM_LOST",
    "JobEvent",
    "JobHandle",
    "JobTimeout",
    "QuorumMissing",
    "SwarmResult",
    "emptied",
    "progress_line",
]

QUORUM_LOST = "QUORUM_LOST"
MAX_TOLD = 4_096


class JobTimeout(PeerError):
    """The job has not ended in time; it goes on."""

    exit_code = 4


class QuorumMissing(PeerError):
    """The job has not ended in time, because its group lacks a majority; it goes on when that is back."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        kind: "progress", "moved" (to another peer to follow from), "waiting", "ended", or that of an entry of
            the job's log: "leader", "stage", "lost", "again", "healed", …
        text: one line.
        node: the peer it is about, "" for none.
        at_s: wall clock.
        view: the job as it was then; None with "moved".
    """

    kind: str
    text: str
    node: NodeId = NOBODY
    at_s: float = 0.0
    view: q.JobView | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.kind != "progress" else self.text


class JobHandle:
    """A job on a swarm.

    Args:
        client: for this handle alone; it is closed with it.
        job: the job's id.
        warnings: what the swarm said of the submission.
        began_at: when it was handed in, monotonic seconds; None for a job of earlier.
        brought: names of inputs that were put on the ring for it; removed when it is seen to have ended.
    """

    def __init__(
        self,
        client: JobClient,
        job: str,
        *,
        warnings: Sequence[str] = (),
        began_at: float | None = None,
        brought: Sequence[str] = (),
    ) -> None:
        self.id = job
        self.warnings = tuple(warnings)
        self.client = client
        self._began_at = began_at
        self._view: q.JobView | None = None
        self._took_s: float | None = None
        self._brought = list(brought)

    def __enter__(self) -> JobHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the job goes on."""
        self.client.close()

    def status(self) -> q.JobView:
        """Return how the job is now.

        Raises:
            JobUnknown: no peer knows it any more.
        """
        if self._view is None or not self._view.state.is_final:
            self._take(self.client.view(self.id))
        assert self._view is not None
        return self._view

    def events(self, timeout_s: float | None = None) -> Iterator[JobEvent]:
        """Yield what happens, until the job has ended.

        Args:
            timeout_s: how long to follow it; None: to the end.

        Raises:
            JobTimeout, QuorumMissing: it has not ended in that time.
            NoPeerReached: no peer answers any more.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        told: set[EventRecord] = set()
        line = waiting = ""
        if self._view is not None and self._view.state.is_final:
            return
        for news in self.client.follow(self.id):
            if isinstance(news, Moved):
                yield JobEvent(kind="moved", text=str(news), at_s=time.time())
            elif news is not None:
                self._take(news)
                # A view may be older than the one before, and the log drops what is old.
                fresh = [event for event in news.events if event not in told]
                told = told.union(fresh) if len(told) < MAX_TOLD else set(news.events)
                for event in fresh:
                    yield JobEvent(
                        kind=event.kind, text=event.text, node=event.node, at_s=event.at_s, view=news
                    )
                if news.waiting_for != waiting:
                    waiting = news.waiting_for
                    yield JobEvent(kind="waiting", text=waiting or "it moves again", view=news)
                now_line = progress_line(news)
                if now_line != line:
                    line = now_line
                    yield JobEvent(kind="progress", text=line, at_s=time.time(), view=news)
                if news.state.is_final:
                    text = f"job {self.id[:12]} has ended: {news.state}"
                    yield JobEvent(kind="ended", text=text, at_s=news.ended_at_s, view=news)
                    return
            if deadline is not None and time.monotonic() >= deadline:
                if waiting and "quorum" in waiting:
                    text = f"{QUORUM_LOST}: job {self.id[:12]}: {waiting}; it goes on when they are back"
                    raise QuorumMissing(text)
                raise JobTimeout(f"job {self.id[:12]} has not ended in {timeout_s:g} s; it goes on")

    def wait(self, timeout_s: float | None = None) -> q.JobView:
        """Return how the job has ended, as soon as it has.

        Raises: as `events`.
        """
        for _ in self.events(timeout_s):
            pass
        return self.status()

    def result(self, timeout_s: float | None = None) -> SwarmResult:
        """Wait for the job and give its result.

        Raises:
            JobError: it failed, or was cancelled.
            ResultGone: it was there and is no more.
            JobTimeout, QuorumMissing, NoPeerReached: as `events`.
        """
        view = self.wait(timeout_s)
        if view.state is not JobStatus.COMMITTED:
            raise failure_of(view)
        return SwarmResult(self, view, self._took_s)

    def cancel(self) -> q.JobView | None:
        """End the job; returns how it is then, None if nobody who leads it was reached."""
        view = self.client.cancel(self.id)
        if view is not None:
            self._take(view)
        return view

    def logs(self) -> list[q.LogsAre]:
        """Return what user code has printed, peer by peer, the end of it."""
        return self.client.logs(self.id)

    def report(self) -> dict[str, Any]:
        """Return what the job did and cost so far, as `--report` writes it."""
        return report_of(self.status(), self._took_s)

    def _take(self, view: q.JobView) -> None:
        self._view = view
        if view.state.is_final and self._began_at is not None and self._took_s is None:
            self._took_s = time.monotonic() - self._began_at
        if view.state.is_final and self._brought:
            names, self._brought = self._brought, []
            take_back(self.client, names)


class SwarmResult:
    """A finished job's output: iterate it for (key, value) pairs, in part and key order.

    Attributes:
        counters: {name: value}, summed over all tasks.
    """

    def __init__(self, handle: JobHandle, view: q.JobView, took_s: float | None) -> None:
        self._handle = handle  # whose connection ends with it
        self._view = view
        self._took_s = took_s
        self.counters: dict[str, int] = dict(view.counters)

    def __enter__(self) -> SwarmResult:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the parts stay with the swarm, and the connection is the handle's."""

    def __iter__(self) -> Iterator[Pair]:
        if self._view.out_format:
            raise ResultGone(
                f"job {self._view.job[:12]} was submitted for {self._view.out_format} output: fetch its parts"
            )
        import tempfile

        from mapreduce.runs import read_blocks

        for row in self._handle.client.parts(self._view.job):
            if not row.attempt:
                continue
            with tempfile.TemporaryFile() as file:
                self._handle.client.write_part(self._view.job, row, file.write, emptied(file))
                for keys, _, values in read_blocks(file, 0, row.size_bytes):
                    yield from zip(keys, values, strict=True)

    def report(self) -> dict[str, Any]:
        """Return what the job did and cost, as `--report` writes it."""
        return report_of(self._view, self._took_s)


def progress_line(view: q.JobView) -> str:
    """Return a job's progress as one line: the stage that runs, and how many there are."""
    if view.state.is_final:
        return f"{view.state}"
    for number, stage in enumerate(view.stages):
        if stage.total < 0 or stage.done < stage.total:
            total = "?" if stage.total < 0 else f"{stage.total}"
            return f"{stage.name}: {stage.done}/{total} tasks (stage {number + 1} of {len(view.stages)})"
    return "finishing"


def emptied(file: BinaryIO) -> Callable[[], None]:
    """Return what empties a file again."""

    def restart() -> None:
        file.seek(0)
        file.truncate()

    return restart
