"""Named places at which a test may hurt the process that reaches them.

Theory
------
A crash is only interesting at certain moments: a vote is on disk and its promise is not sent, a chunk has
left and its acknowledgement has not come.  Such a moment is a *failpoint*: one line in the shell, with a name
that stands in `FAILPOINTS` and at one place in the code.  Off, which is always but in `tools.chaos`, it is a
call that looks at one empty string.  The pure machines hold none: they are hurt where their effects are
performed.

*Arming.*  `RINGREDUCE_FAILPOINT` names a file; nothing else arms anything, and it is read when the process
starts.  The file holds one line, ``NAME=ACTION@N``: the N-th time (1 without) that one process reaches NAME
while this very file lies there, it does ACTION:

==========  ============================================================================================
kill        SIGKILL to itself
stop        SIGSTOP to itself; whoever armed it resumes it
cut:S       all of its network traffic is dropped, in both directions, for S seconds
eio         `OSError` (EIO), here and each further time, until something else is armed
slow:S      sleep for S seconds, likewise
==========  ============================================================================================

All processes of a swarm, children too, may look at the same file, and still only one of them acts: it must
first win the file by renaming it.  What it then leaves behind, ``FILE.fired`` with its process id, is the
proof that the fault happened, and a restarted peer finds nothing that would kill it again.

⚙ This module ends processes, on purpose.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from typing import Final

__all__ = ["ACTIONS", "FAILPOINTS", "VARIABLE", "failpoint", "is_armed", "is_cut"]

VARIABLE: Final = "RINGREDUCE_FAILPOINT"
ACTIONS: Final = ("kill", "stop", "cut", "eio", "slow")

FAILPOINTS: Final = {
    "submit.stored": "the spec of a submitted job is on disk, nobody was asked yet",
    "submit.asked": "all peers are asked whether the job can run there",
    "vet.begin": "a child is about to look whether a job can run here",
    "vet.answer": "whether a job can run here is about to be said",
    "birth.begin": "the job's register is about to be founded",
    "birth.send": "a member of the first or a later group is about to be told its record",
    "birth.done": "the job is born, its client was not told",
    "lead.elected": "an election is won",
    "lead.begin": "the job's plan is here, its leader has done nothing yet",
    "takeover.ask": "a new leader is about to ask what a worker holds",
    "takeover.tell": "a worker is about to tell a leader what it holds",
    "offer.send": "a stage is about to be offered",
    "claim.send": "tasks are about to be claimed",
    "grant.send": "attempts are about to be granted",
    "grant.heard": "granted attempts were heard of, nothing has begun",
    "task.begin": "an attempt is about to be given to a child",
    "task.done": "a child has ended an attempt, nobody was told",
    "attempt.map": "a child begins a map attempt",
    "attempt.reduce": "a child begins a reduce attempt",
    "attempt.written": "a child has written a part and not said so",
    "push.begin": "a transfer is about to begin",
    "push.chunk": "a chunk of a transfer is about to be sent",
    "push.take": "a chunk has come and is not written",
    "push.acked": "the receiver of a transfer has answered, nobody was told",
    "store.write": "bytes are about to be written to a segment",
    "store.rename": "a segment is whole under its temporary name",
    "store.renamed": "a segment has its name, the index does not know it",
    "store.adopt": "a file that a task wrote is about to become a segment where it lies",
    "store.adopted": "such a file has its second name, the index does not know it",
    "finished.send": "a worker is about to report an attempt",
    "finished.heard": "a leader has heard of a finished attempt, and not taken it",
    "commit.propose": "changes of the job's record are about to be proposed",
    "commit.accept": "a proposal is about to be sent to a member",
    "vote.save": "an acceptor is about to make its vote durable",
    "vote.sync": "a vote is written, not synced",
    "vote.rename": "a vote is synced under its temporary name",
    "vote.renamed": "a vote has its name, the directory is not synced",
    "vote.saved": "a vote is durable, its answer is not sent",
    "commit.chosen": "a change is chosen, the leader does not know it",
    "settled.send": "a worker is about to be told that attempts are settled",
    "seal.begin": "a group is about to be sealed, for another one to follow",
    "seal.done": "the job's group has changed",
    "copy.order": "a holder is about to be told to make a copy",
    "copy.done": "a copy was made, the leader was not told",
    "result.list": "a client has asked where the parts lie",
    "result.read": "a client has asked for bytes of a part",
    "publish.rename": "a part is about to become visible in the output directory",
    "publish.renamed": "a part is visible in the output directory",
    "publish.mark": "all parts are visible, `_SUCCESS` is not there",
    "dissolve.send": "a worker is about to be told that the job is over",
    "dissolve.heard": "a worker has heard that the job is over",
    "drop.begin": "what a job has left here is about to be removed",
    "drop.done": "what a job has left here is removed",
}
"""{name: the moment}, in the order of a job's life."""

_file = os.environ.get(VARIABLE, "")


@dataclass(frozen=True, slots=True)
class _Arming:
    """What a file says; `file_id` tells it from another one of the same name."""

    file_id: tuple[int, int]
    name: str
    action: str
    seconds: float
    on_hit: int


@dataclass(slots=True)
class _State:
    arming: _Arming | None = None
    hits: int = 0
    lasting: _Arming | None = None
    cut_until_s: float = 0.0


_state = _State()


def failpoint(name: str) -> None:
    """Be hurt here, if a test wants it; costs a call and a look at a string otherwise.

    Args:
        name: one of `FAILPOINTS`, or "" for none.

    Raises:
        OSError: the action is ``eio``.
    """
    if _file and name:
        _reach(name)


def is_armed() -> bool:
    """Tell whether this process was started by a test that may arm failpoints."""
    return bool(_file)


def is_cut() -> bool:
    """Tell whether all network traffic is to be dropped now."""
    return time.monotonic() < _state.cut_until_s


def parse(text: str) -> tuple[str, str, float, int]:
    """Read ``NAME=ACTION[:S][@N]``; gives name, action, seconds, on which hit.

    Raises:
        ValueError: it is none, or names what does not exist.
    """
    name, _, what = text.strip().partition("=")
    action_s, _, hit = what.partition("@")
    action, _, seconds = action_s.partition(":")
    if name not in FAILPOINTS or action not in ACTIONS:
        raise ValueError(f"no failpoint, or no action: {text!r}")
    return name, action, float(seconds or 0.0), int(hit or 1)


def _reach(name: str) -> None:
    arming = _armed()
    lasting = _state.lasting
    if lasting is not None and lasting.name == name:
        _hurt(lasting)
        return
    if arming is None or arming.name != name:
        return
    _state.hits += 1
    if _state.hits >= arming.on_hit and _win(arming):
        _hurt(arming)


def _armed() -> _Arming | None:
    """What the file says now; one that is not there arms nothing."""
    try:
        found = os.stat(_file)
        file_id = (found.st_ino, found.st_mtime_ns)
        if _state.arming is None or _state.arming.file_id != file_id:
            with open(_file, encoding="ascii") as file:
                _state.arming = _Arming(file_id, *parse(file.read()))
            _state.hits, _state.lasting = 0, None
    except FileNotFoundError:
        return None
    return _state.arming


def _win(arming: _Arming) -> bool:
    """Be the one process that acts: only one can rename the file."""
    mine = f"{_file}.{os.getpid()}"
    try:
        os.rename(_file, mine)
    except FileNotFoundError:
        return False
    with open(mine, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()} {arming.name} {arming.action}\n")
    os.rename(mine, f"{_file}.fired")
    return True


def _hurt(arming: _Arming) -> None:
    if arming.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif arming.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif arming.action == "cut":
        _state.cut_until_s = time.monotonic() + arming.seconds
    elif arming.action == "slow":
        _state.lasting = arming
        time.sleep(arming.seconds)
    else:
        _state.lasting = arming
        raise OSError(errno.EIO, os.strerror(errno.EIO))
