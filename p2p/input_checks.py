"""Whose fault a failure was: every byte that a failed attempt has read is checked, a little at a time.

An attempt that could not read its input may have met damage, and then the outputs in question have to be
named, so that others' copies are taken or their tasks run again.  The inputs of one attempt may be
gigabytes, so a step is taken now and then, `CHECK_STEPS` megabytes in a turn of the loop, instead of waiting
for the end; failed attempts are looked at one after another.

⚙ This module reads files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

from mapreduce.effects import RunTask
from mapreduce.orders import AnyOrder, ReduceOrder, TaskError
from mapreduce.pieces import BlockDamaged
from mapreduce.runs import DamagedRun, read_blocks
from p2p.disk import is_want_of_ours
from p2p.segments import Located
from p2p.store import Store

__all__ = ["CHECK_PAUSE_S", "CHECK_STEPS", "InputChecks", "Verdict", "damaged_block", "damaged_inputs"]

# What failed attempts have read is checked so many megabytes in a turn of the loop, a few milliseconds.
CHECK_STEPS = 4
CHECK_PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose fault a failure was.

    Attributes:
        effect: the attempt that failed.
        error: what it said.
        missing: the tasks whose outputs are damaged, and not here any more.
        is_innocent: whether it was what the attempt has read.
    """

    effect: RunTask
    error: TaskError
    missing: tuple[int, ...]
    is_innocent: bool


@dataclass(slots=True)
class _Check:
    """An attempt that failed, perhaps because of what it read; `steps` end with whose outputs are damaged."""

    effect: RunTask
    order: AnyOrder
    error: TaskError
    steps: Generator[None, None, tuple[int, ...]]


class InputChecks:
    """Failed attempts whose inputs are being checked, in order.

    Args:
        store: where the inputs lie.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._checks: deque[_Check] = deque()

    def __bool__(self) -> bool:
        return bool(self._checks)

    def begin(self, effect: RunTask, order: AnyOrder, error: TaskError) -> None:
        """Check what an attempt has read that failed with this error, when those before it are checked."""
        is_block = error.kind == BlockDamaged.__name__
        steps = damaged_block(self._store, error.message) if is_block else damaged_inputs(self._store, effect)
        self._checks.append(_Check(effect, order, error, steps))

    def go_on(self) -> Verdict | None:
        """Check a little more; return the verdict on an attempt of which all is checked."""
        if not self._checks:
            return None
        check = self._checks[0]
        try:
            for _ in range(CHECK_STEPS):
                next(check.steps)
        except StopIteration as end:
            self._checks.popleft()
            missing: tuple[int, ...] = end.value
            # Another task may have found the same damage a moment ago, and the segment is gone since.
            is_innocent = bool(missing) or not self._reads_what_is_here(check.order)
            return Verdict(check.effect, check.error, missing, is_innocent)
        return None

    def drop(self, job: str, attempt: int | None = None) -> None:
        """Nothing is to be told any more of an attempt, or of all of a job."""
        for check in list(self._checks):
            if check.effect.setup.job == job and attempt in (None, check.effect.attempt):
                check.steps.close()
                self._checks.remove(check)

    def close(self) -> None:
        """Nothing is to be told of any attempt."""
        for check in self._checks:
            check.steps.close()
        self._checks.clear()

    def _reads_what_is_here(self, order: AnyOrder) -> bool:
        """Whether everything that an attempt was to read is still in the store."""
        if not isinstance(order, ReduceOrder):
            return True
        return all(self._store.holds_path(path) for path in {found.path for found in order.runs})


def damaged_inputs(store: Store, effect: RunTask) -> Generator[None, None, tuple[int, ...]]:
    """Check what an attempt was to read, and remove what is damaged.

    What goes from the store meanwhile is nobody's damage: who removed it has told of it.

    Args:
        store: where the inputs lie.
        effect: the attempt.

    Yields:
        After every megabyte or so.

    Returns:
        The tasks whose outputs are damaged.
    """
    job = effect.setup.job
    if effect.piece is not None:
        piece = store.find(job, effect.piece.stage, effect.piece.attempt)
        return (effect.piece.part,) if piece and not (yield from _is_whole(store, piece.path)) else ()
    found = {
        task: located
        for task, attempt in enumerate(effect.reads)
        if attempt and (located := store.find(job, effect.read_stage, attempt, effect.task))
    }
    bad: set[str] = set()
    for path in dict.fromkeys(one.path for one in found.values()):
        if not (yield from _is_whole(store, path)):
            bad.add(path)
    for located in found.values():
        if located.path in bad or not store.holds_path(located.path):
            continue
        # A copy that was made of damaged bytes is whole as a segment; the run in it has its own digest.
        if not (yield from _is_sound(located)):
            store.remove_segment(located.path)
            bad.add(located.path)
    return tuple(task for task, located in found.items() if located.path in bad)


def damaged_block(store: Store, path: str) -> Generator[None, None, tuple[int, ...]]:
    """Check a block of a file of the ring that a reader found damaged, and remove it if it is.

    It is nobody's output, so no task is to be named; it is fetched again.
    """
    yield from _is_whole(store, path)
    return ()


def _is_whole(store: Store, path: str) -> Generator[None, None, bool]:
    """Check a segment by its own digest."""
    if not store.holds_path(path):
        return True
    try:
        for is_whole in store.verifying(path):
            if not is_whole:
                return False
            yield
    except OSError:
        return True  # for want of descriptors: no output is named as damaged that was not seen to be
    return True


def _is_sound(located: Located) -> Generator[None, None, bool]:
    """Read a run to its end."""
    try:
        with open(located.path, "rb") as file:
            for _ in read_blocks(file, located.offset, located.length):
                yield
    except DamagedRun:
        return False
    except OSError as error:
        return is_want_of_ours(error)
    return True
