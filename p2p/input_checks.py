"""Whose fault a failure was: every byte that a failed attempt has read is checked, a little at a time.

An attempt that could not read its input may have met damage, and then the outputs in question have to be
named, so that others' copies are taken or their tasks run again.  The inputs of one attempt may be
gigabytes, so the caller takes a step now and then instead of waiting for the end.

⚙ This module reads files.
"""

from __future__ import annotations

from collections.abc import Generator

from mapreduce.effects import RunTask
from mapreduce.runs import DamagedRun, read_blocks
from p2p.segments import Located
from p2p.store import Store

__all__ = ["damaged_inputs"]


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


def _is_whole(store: Store, path: str) -> Generator[None, None, bool]:
    """Check a segment by its own digest."""
    if not store.holds_path(path):
        return True
    for is_whole in store.verifying(path):
        if not is_whole:
            return False
        yield
    return True


def _is_sound(located: Located) -> Generator[None, None, bool]:
    """Read a run to its end."""
    try:
        with open(located.path, "rb") as file:
            for _ in read_blocks(file, located.offset, located.length):
                yield
    except (DamagedRun, OSError):
        return False
    return True
