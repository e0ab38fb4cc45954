"""What a leader writes into its job's record, and when.

Proposals are one at a time.  What finishes while one is under way waits for the next; one is made when the
last task of the stage is finished, or a while after the first winner that waits
(`JobsConfig.commit_window_s`).  It carries all that belongs together: winners, moved places, losses, what
follows from them (`mapreduce.openings`), and the lines that wait for the event log.  A *last word*, a failure
or a cancellation, goes before everything else.

A proposal that would make the record too large is *refused*, and then the job has to fail.  The record is
nearly full at that moment, so the last word may be refused as well: then it is said more shortly, and at last
in a way that makes room for itself (`mapreduce.changes.Fail`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

from mapreduce.changes import (
    AddEvents,
    Cancel,
    Change,
    Commit,
    CommitTasks,
    Fail,
    Finish,
    Proposal,
    changed,
)
from mapreduce.config import JobsConfig
from mapreduce.counts import Numbers
from mapreduce.keeper import Keeper
from mapreduce.openings import changes_after
from mapreduce.record import EventRecord, Failure, JobRecord, StageKind
from mapreduce.stage_run import StageRun
from mapreduce.stages import StageGraph
from mapreduce.telling import told
from membership.view import NodeId, View

__all__ = ["Proposals"]

MAX_WAITING_EVENTS = 256
# Of a failure whose last word has to be short; a record that takes this much more is not nearly full.
SHORT_CHARS = 2 << 10
# Whole, short, bare: what is refused thrice is not said again.
MAX_LAST_WORDS = 3


class Proposals:
    """The proposals of one leadership.

    Args:
        leader, token: whose, and which leadership's.
        graph: the job's stages.
        keeper: knows who holds what, and which places have moved.
        numbers: what the leadership counts.
        config: see there.
        wall_offset_s: what to add to `now` for the wall clock.
    """

    def __init__(
        self,
        *,
        leader: NodeId,
        token: str,
        graph: StageGraph,
        keeper: Keeper,
        numbers: Numbers,
        config: JobsConfig,
        wall_offset_s: float,
    ) -> None:
        self.under_way: Proposal | None = None
        self.last_word: Fail | Cancel | None = None
        self._leader = leader
        self._token = token
        self._graph = graph
        self._keeper = keeper
        self._numbers = numbers
        self._config = config
        self._wall_offset_s = wall_offset_s
        self._count = 0
        self._last_words = 0
        self._due_at = inf
        self._finish_by = inf
        self._events: list[EventRecord] = []

    # -- what is to be written -----------------------------------------------------------------------------

    def note(self, event: EventRecord) -> None:
        """Let a line wait for the event log; beyond a bound it is left out."""
        if len(self._events) < MAX_WAITING_EVENTS:
            self._events.append(event)

    def fail(self, failure: Failure, now: float) -> bool:
        """End the job as failed; False where its end is decided already."""
        if self.last_word is not None:
            return False
        self.last_word = Fail(failure=told(failure), at_s=now + self._wall_offset_s)
        return True

    def cancel(self, by: str, now: float) -> bool:
        """End the job as cancelled; False where its end is decided already."""
        if self.last_word is not None:
            return False
        self.last_word = Cancel(by=by, at_s=now + self._wall_offset_s)
        return True

    def soon(self, run: StageRun | None, now: float) -> None:
        """There is something to be written; with the last task of a stage it is written at once."""
        if run is not None and run.is_finished:
            self._due_at = now
            return
        window_s = self._config.commit_window_s
        if run is not None:
            window_s += self._config.commit_window_task_s * run.pool.count
        self._due_at = min(self._due_at, now + window_s)

    @property
    def due_at(self) -> float:
        """When the next one is to be made; infinity while one is under way."""
        return inf if self.under_way is not None else self._due_at

    # -- making them -----------------------------------------------------------------------------------------

    def next(
        self,
        record: JobRecord,
        run: StageRun | None,
        view: View,
        losses: Sequence[Change],
        now: float,
        *,
        takes_over: bool,
    ) -> Proposal | None:
        """Make the next one, if it is time for it, or there is something that cannot wait.

        Args:
            record: the newest.
            run: the stage that runs.
            view: membership's, to draw places for new stages.
            losses: what must be taken back.
            now: in seconds.
            takes_over: it is to make the record name the leader, whatever else is in it.
        """
        if self.last_word is not None:
            return self._begin_last(self.last_word, now)
        if now < self._due_at and not losses and not takes_over:
            return None
        if now >= self._due_at:
            self._due_at = inf
        changes = self._changes(record, run, view, losses, now)
        return self._begin(changes) if changes or takes_over else None

    def ended(self) -> Proposal | None:
        """The one under way was chosen, or never will be; gives it."""
        proposal, self.under_way = self.under_way, None
        return proposal

    def refused(self) -> None:
        """The one under way does not fit the record; nothing of it will ever be chosen."""
        self.under_way = None
        if self._count == 1:
            self._count = 0  # what comes instead has to be the takeover

    def _begin_last(self, word: Fail | Cancel, now: float) -> Proposal | None:
        self._last_words += 1
        if self._last_words > MAX_LAST_WORDS:
            return None
        if self._last_words == 1:
            return self._begin([*self._take_events(now, all_=True), word])
        is_bare = self._last_words == MAX_LAST_WORDS
        if isinstance(word, Fail):
            return self._begin([replace(word, failure=_short(word.failure), is_bare=is_bare)])
        return self._begin([replace(word, is_bare=is_bare)])

    def _begin(self, changes: Sequence[Change]) -> Proposal:
        self._count += 1
        self.under_way = Proposal(
            leader=self._leader, token=self._token, number=self._count, changes=tuple(changes)
        )
        return self.under_way

    def _changes(
        self, record: JobRecord, run: StageRun | None, view: View, losses: Sequence[Change], now: float
    ) -> list[Change]:
        changes: list[Change] = self._commits(run, now) if run is not None else []
        changes += self._keeper.take_moves()
        changes += losses
        following = changes_after(
            self._graph,
            changed(record, changes),
            view=view,
            rows=self._keeper.rows,
            samples=run.samples if run is not None else {},
            at_s=now + self._wall_offset_s,
        )
        if following and isinstance(following[-1], Finish) and self._waits_for_copies(changes, now):
            del following[-1]
        if following and isinstance(following[-1], Fail):
            # Winners that break what the job promises (their counters, say) must not come into the record,
            # which nobody might be able to read then.
            changes = [
                replace(change, commits=()) if isinstance(change, CommitTasks) else change
                for change in changes
            ]
        events = self._take_events(now, all_=bool(following))
        if following and isinstance(following[-1], Finish):
            return [*changes, *following[:-1], *events, following[-1]]  # the end absorbs what comes after
        return [*changes, *following, *events]

    def _waits_for_copies(self, changes: Iterable[Change], now: float) -> bool:
        """Whether the job, which is done, should not end yet: its result has fewer copies than it could."""
        new = [commit for change in changes if isinstance(change, CommitTasks) for commit in change.commits]
        enough = self._keeper.copies_possible
        if not self._keeper.is_short(self._graph.result_stage) and all(
            commit.is_empty or len(commit.places) >= enough for commit in new
        ):
            return False
        self._finish_by = min(self._finish_by, now + self._config.finish_wait_s)
        self._due_at = min(now + self._config.retry_s, self._finish_by)
        return now < self._finish_by

    def _commits(self, run: StageRun, now: float) -> list[Change]:
        """The winners that are ready; those of a sampling stage only all together."""
        numbers = self._numbers
        ready: tuple[Commit, ...] = ()
        if run.stage.kind is not StageKind.SAMPLE or run.is_finished:
            ready = run.take_ready(self._config.commit_batch)
        if not ready and not numbers.has_news:
            return []
        for commit in ready:
            numbers.doings.note("committed", commit.worker, 1, now, size_bytes=commit.size_bytes)
        commits = CommitTasks(
            stage=run.stage.index,
            commits=ready,
            is_result=run.stage.index == self._graph.result_stage,
            attempts=numbers.unsaved_attempts,
            failed_attempts=numbers.unsaved_failures,
            speculated=numbers.unsaved_speculated,
            peers_lost=numbers.unsaved_peers_lost,
        )
        numbers.saved()
        return [commits]

    def _take_events(self, now: float, *, all_: bool) -> list[Change]:
        events, self._events = self._events, []
        events += self._numbers.doings.take(now, self._wall_offset_s, everything=all_)
        return [AddEvents(events=tuple(events))] if events else []


def _short(failure: Failure) -> Failure:
    """The end of a traceback says most."""
    return replace(
        failure,
        message=failure.message[:SHORT_CHARS],
        details=failure.details[-SHORT_CHARS:],
        position=failure.position[:SHORT_CHARS],
    )
