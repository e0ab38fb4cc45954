"""What leaders and workers say to each other about a job.

Theory of operation
-------------------
Every message names its job and a *ballot*: the number of a leadership, which the record gives (see
`mapreduce.record`).  A worker remembers the highest ballot it has seen of a job and drops orders of lower
ones, so a deposed leader moves nobody.  A leader drops what was said to another leadership.

Any message may be lost, doubled or late.  So none of them is a mere difference to the one before:

=============  =================  =======================================================================
message        from -> to         repeated until
=============  =================  =======================================================================
Beat           leader -> worker   for ever, once a period: "I lead, this is the stage, this its version"
AskOffer       worker -> leader   it has the offer that a beat spoke of
Offer          leader -> worker   sent at a stage's start, when its places move, and when asked for
Claim          worker -> leader   each says how much room there is *now*; `seen` settles what is on its way
Grant          leader -> worker   the worker's `Working` mentions the attempts, or is seen not to
Working        worker -> leader   once a period: everything the worker has in hand; renews the leases
Finished       worker -> leader   `Settled` mentions the attempts
Failed         worker -> leader   `Settled` mentions the attempts
Settled        leader -> worker   said again whenever the attempts are reported again
Revoke         leader -> worker   `Returned`, or a `Working` without the attempts
Returned       worker -> leader   likewise
CopyOrder      leader -> holder   `Copied`; after a time limit another order is given
Copied         holder -> leader   said again whenever the order is given again
Missing        worker -> leader   once; an inventory says the same
AskInventory   leader -> worker   `Inventory` is complete
Dissolve       leader -> worker   the worker does not speak of the job any more
AskFate        worker -> members  nobody has led for a while: is the job over?
=============  =================  =======================================================================

Attempts are numbered `ballot * 2**24 + n`: unique across leaders, so a number says which run of which
task is meant, whoever gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mapreduce.record import Failure, JobStatus, StageKind
from mapreduce.spec import PackedColumn
from membership.view import NodeId

__all__ = [
    "ATTEMPTS_PER_BALLOT",
    "MAX_TRANSFER_ROWS",
    "AskFate",
    "AskInventory",
    "AskOffer",
    "Beat",
    "Claim",
    "Copied",
    "CopyOrder",
    "Dissolve",
    "Done",
    "DropOutputs",
    "Failed",
    "Finished",
    "Grant",
    "GrantItem",
    "HeldAttempt",
    "HeldGroup",
    "Inventory",
    "Message",
    "Missing",
    "Offer",
    "Phase",
    "Piece",
    "Returned",
    "Revoke",
    "Settled",
    "ToLeader",
    "ToWorker",
    "Working",
    "most_attempts",
]

ATTEMPTS_PER_BALLOT = 1 << 24
# Ranges that one transfer lists, of attempts times partitions: the list has to fit into one message.
MAX_TRANSFER_ROWS = 50_000


class Phase(StrEnum):
    """How far a worker is with an attempt."""

    QUEUED = "queued"
    RUNNING = "running"
    PUSHING = "pushing"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A range of an earlier step's part, which a map task of a later step reads.

    Attributes:
        stage, part, attempt: whose output it is.
        start, end: bytes of the part.
        name: the part as it is named in messages to people.
        holders: who held the part when this was said, best first.
    """

    stage: int
    part: int
    attempt: int
    start: int
    end: int
    name: str
    holders: tuple[NodeId, ...]


# -- leader to worker -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """I lead this job; `stage` runs, its places have this version.

    `needs_you` tells a peer that is about to leave that copies are still to be made from what it holds.
    """

    job: str
    ballot: int
    spec_digest: str
    stage: int
    version: int
    needs_you: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Everything that the tasks of a stage share.

    Attributes:
        version: of the places, grows under one ballot.
        kind, tasks, partitions, borders: as in `mapreduce.record.StageRecord`.
        nodes: the names behind the indexes below.
        sessions: of their processes, as far as is known: what one has acknowledged before may be lost.
        places: rows of who shall hold the outputs, see `mapreduce.placement`.
        homes: for each task the node that should run it, because the data lies there; empty where the
            ring says it (a stage that reads the job's inputs).
        reads: of a reduce stage: the winning attempt of each map task; 0 for one without output.
        members: the job's group, whom to ask when the leader falls silent.
    """

    job: str
    ballot: int
    spec_digest: str
    stage: int
    version: int
    kind: StageKind
    tasks: int
    partitions: int
    borders: PackedColumn | None = None
    nodes: tuple[NodeId, ...] = ()
    sessions: tuple[int, ...] = ()
    places: tuple[tuple[int, ...], ...] = ()
    homes: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()
    members: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantItem:
    """One attempt to run; `number` is how often the task has been granted, this time included."""

    task: int
    attempt: int
    number: int
    piece: Piece | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Run these; `number` counts the grants to this worker under this ballot."""

    job: str
    ballot: int
    stage: int
    number: int
    items: tuple[GrantItem, ...]
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Give these attempts back if they have not begun; with `force`, drop them whatever they do."""

    job: str
    ballot: int
    stage: int
    attempts: tuple[int, ...]
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What was reported of these attempts is in the record, or will never matter: forget them."""

    job: str
    ballot: int
    stage: int
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOrder:
    """Push these outputs to `to`, which shall hold them and does not.

    `partitions` of map outputs; empty: the whole output. `tasks` and `attempts` belong together.
    """

    job: str
    ballot: int
    number: int
    stage: int
    to: NodeId
    partitions: tuple[int, ...]
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskInventory:
    """Say what you hold of this job."""

    job: str
    ballot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DropOutputs:
    """Nobody reads the outputs of these stages any more."""

    job: str
    ballot: int
    stages: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissolve:
    """The job is over: drop everything but the outputs of `keep_stage` (-1: nothing), those for `keep_s`."""

    job: str
    ballot: int
    status: JobStatus
    keep_stage: int
    keep_s: float


# -- worker to leader -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOffer:
    """I do not have the offer you spoke of."""

    job: str
    ballot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """I have room for so many attempts, and would have these tasks; without tasks: any.

    Attributes:
        session: of the worker's process; another one than before means that it has forgotten everything.
        seen: number of the last grant that this room takes into account.
        idle: how many of them could begin at once; the others would lie ready for the next free slot.
    """

    job: str
    ballot: int
    stage: int
    session: int
    seen: int
    room: int
    idle: int = 0
    tasks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAttempt:
    """An attempt in a worker's hands."""

    task: int
    attempt: int
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """All attempts of the job in my hands; `seen` and `session` as in `Claim`.

    `stage` is that of the attempts. `status` is what user code last said it does.
    """

    job: str
    ballot: int
    stage: int
    session: int
    seen: int
    held: tuple[HeldAttempt, ...]
    status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished attempt, its output acknowledged by every place.

    Attributes:
        is_empty: there is no output at all.
        cuts, digest, size_bytes, records: as in `mapreduce.record.Winner`.
        sample: of a sampling task: keys.
        replica_bytes: what was sent to other peers.
    """

    task: int
    attempt: int
    is_empty: bool = False
    digest: bytes = b""
    size_bytes: int = 0
    records: int = 0
    cuts: tuple[int, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    sample: PackedColumn | None = None
    replica_bytes: int = 0
    spilled_bytes: int = 0
    bad_records: int = 0
    took_ms: int = 0
    cpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """These attempts are finished; `version` is that of the places which have acknowledged them."""

    job: str
    ballot: int
    stage: int
    version: int
    items: tuple[Done, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """This attempt failed. `missing` of a reduce task: map tasks whose outputs are not here after all."""

    job: str
    ballot: int
    stage: int
    task: int
    attempt: int
    failure: Failure
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """These attempts were not begun; somebody else may have their tasks."""

    job: str
    ballot: int
    stage: int
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldGroup:
    """Outputs that lie here: of these attempts, those partitions; no partitions: the whole output.

    `tasks` and `attempts` belong together. A partition for which an attempt had no pairs counts as held.
    """

    stage: int
    partitions: tuple[int, ...]
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]


def most_attempts(batch: int, partitions: int) -> int:
    """Return how many attempts go in one transfer: a batch, or as many as its list of ranges has room for.

    Args:
        batch: so many in any case.
        partitions: how many of each attempt are sent; 0: the whole output.
    """
    return max(1, min(batch, MAX_TRANSFER_ROWS // max(1, partitions)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What lies here, as one of several messages; with `is_last` it is all."""

    job: str
    ballot: int
    session: int
    groups: tuple[HeldGroup, ...]
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A `CopyOrder` is done (`reason` empty), or cannot be."""

    job: str
    ballot: int
    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """These outputs lay here and are damaged or gone; `tasks` and `attempts` belong together."""

    job: str
    ballot: int
    stage: int
    tasks: tuple[int, ...]
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskFate:
    """Nobody has led this job for a while. Whoever leads it, or knows its end, says so."""

    job: str


ToWorker = Beat | Offer | Grant | Revoke | Settled | CopyOrder | AskInventory | DropOutputs | Dissolve
ToLeader = AskOffer | Claim | Working | Finished | Failed | Returned | Inventory | Copied | Missing | AskFate
Message = ToWorker | ToLeader
