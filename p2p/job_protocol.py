"""How leaders and workers speak on the wire, and how a job's record becomes bytes.

Messages go through `p2p.wire`; their rows stand in `JOB_KINDS`, with tags 60 to 89.  A record is no message:
it lies in a register.  It is packed by a schema of the same kind, see `p2p.spec_packing`.
"""

from __future__ import annotations

from functools import cache

from mapreduce import locking
from mapreduce import messages as m
from mapreduce.context import MAX_COUNTER_CHARS, MAX_COUNTERS
from mapreduce.lock_claims import MAX_CLAIMS
from mapreduce.record import MAX_EVENT_CHARS, MAX_EVENTS, MAX_NODES, JobRecord
from mapreduce.spec import MAX_PARTITIONS, MAX_REPLICAS, MAX_STEPS, MAX_TASKS
from mapreduce.telling import MAX_DETAILS_CHARS, MAX_MESSAGE_CHARS
from p2p.name_bounds import JOB, NODE, NODES, WORD
from p2p.roles import Role
from p2p.schema import Bounds, Schema, compile_schema
from p2p.spec_packing import packed, unpacked
from p2p.wire import Kind

__all__ = [
    "JOB_KINDS",
    "MAX_RECORD_BYTES",
    "pack_record",
    "unpack_record",
]

# A record travels in one message of the register.
MAX_RECORD_BYTES = 512 << 10

_DIGEST = Bounds(text_chars=64, pattern=r"[0-9a-f]*")
_STAGE = Bounds(most=3 * MAX_STEPS)
_MAYBE_STAGE = Bounds(least=-1, most=3 * MAX_STEPS)
_TASK = Bounds(most=MAX_TASKS - 1)
_TASKS = Bounds(items=MAX_TASKS, most=MAX_TASKS - 1)
_ATTEMPTS = Bounds(items=MAX_TASKS)
_PARTITIONS = Bounds(items=MAX_PARTITIONS, most=MAX_PARTITIONS - 1)
_PLACES = Bounds(items=MAX_TASKS, most=MAX_NODES - 1)
_COUNTERS = Bounds(items=MAX_COUNTERS, text_chars=MAX_COUNTER_CHARS, least=-(1 << 63), most=(1 << 63) - 1)
_COLUMN = {"PackedColumn.form": Bounds(most=255), "PackedColumn.data": Bounds(bytes_len=900 << 10)}
_PIECE = {
    "Piece.stage": _STAGE,
    "Piece.part": _TASK,
    "Piece.holders": NODES,
}
_FAILURE = {
    "Failure.kind": Bounds(text_chars=64),
    "Failure.message": Bounds(text_chars=MAX_MESSAGE_CHARS),
    "Failure.details": Bounds(text_chars=MAX_DETAILS_CHARS),
    "Failure.position": Bounds(text_chars=MAX_MESSAGE_CHARS),
    "Failure.node": NODE,
}
_CUTS = Bounds(items=MAX_TASKS)


def _row(tag: int, message: type, **bounds: Bounds | dict[str, Bounds]) -> Kind:
    """A row; `name=bounds` limits the message's own field, `_name={…}` the fields of what it holds."""
    found: dict[str, Bounds] = {f"{message.__name__}.job": JOB}
    for name, limit in bounds.items():
        if isinstance(limit, dict):
            found |= limit
        else:
            found[f"{message.__name__}.{name}"] = limit
    return Kind(tag=tag, message=message, role=Role.PEER, bounds=found)


JOB_KINDS: tuple[Kind, ...] = (
    _row(60, m.Beat, spec_digest=_DIGEST, stage=_MAYBE_STAGE),
    _row(
        61,
        m.Offer,
        spec_digest=_DIGEST,
        stage=_STAGE,
        tasks=Bounds(most=MAX_TASKS),
        partitions=Bounds(most=MAX_PARTITIONS),
        _column=_COLUMN,
        nodes=Bounds(items=MAX_NODES, text_chars=64, pattern=WORD),
        sessions=Bounds(items=MAX_NODES),
        places=_PLACES,
        homes=_PLACES,
        reads=_ATTEMPTS,
        members=NODES,
    ),
    _row(
        62, m.Grant, stage=_STAGE, items=Bounds(items=4_096), _item={"GrantItem.task": _TASK}, _piece=_PIECE
    ),
    _row(63, m.Revoke, stage=_STAGE, attempts=_ATTEMPTS),
    _row(64, m.Settled, stage=_STAGE, attempts=_ATTEMPTS),
    _row(65, m.CopyOrder, stage=_STAGE, to=NODE, partitions=_PARTITIONS, tasks=_TASKS, attempts=_ATTEMPTS),
    _row(66, m.AskInventory),
    _row(67, m.DropOutputs, stages=Bounds(items=3 * MAX_STEPS, most=3 * MAX_STEPS)),
    _row(68, m.Dissolve, keep_stage=_MAYBE_STAGE),
    _row(70, m.AskOffer),
    _row(71, m.Claim, stage=_STAGE, room=Bounds(most=1 << 20), tasks=_TASKS),
    _row(
        72,
        m.Working,
        stage=_MAYBE_STAGE,
        held=Bounds(items=8_192),
        _held={"HeldAttempt.task": _TASK},
        status=Bounds(text_chars=1_024),
    ),
    _row(
        73,
        m.Finished,
        stage=_STAGE,
        items=Bounds(items=4_096),
        _done={
            "Done.task": _TASK,
            "Done.digest": Bounds(bytes_len=64),
            "Done.cuts": _CUTS,
            "Done.counters": _COUNTERS,
        },
        _column=_COLUMN,
    ),
    _row(74, m.Failed, stage=_STAGE, task=_TASK, _failure=_FAILURE, missing=_TASKS),
    _row(75, m.Returned, stage=_STAGE, attempts=_ATTEMPTS),
    _row(
        76,
        m.Inventory,
        groups=Bounds(items=4_096),
        _group={
            "HeldGroup.stage": _STAGE,
            "HeldGroup.partitions": _PARTITIONS,
            "HeldGroup.tasks": _TASKS,
            "HeldGroup.attempts": _ATTEMPTS,
        },
    ),
    _row(77, m.Copied),
    _row(78, m.Missing, stage=_STAGE, tasks=_TASKS, attempts=_ATTEMPTS),
    _row(79, m.AskFate),
    _row(
        80,
        locking.WantLocks,
        claims=Bounds(items=MAX_CLAIMS),
        _claim={"LockClaim.lock": Bounds(text_chars=2 * locking.NAME_BYTES, pattern=r"[0-9a-f]*")},
    ),
    _row(81, locking.HasLocks, held=Bounds(items=MAX_CLAIMS), lost=Bounds(items=MAX_CLAIMS)),
)


@cache
def _record_schema() -> Schema:
    nodes = Bounds(items=MAX_REPLICAS * 8, most=MAX_NODES - 1)
    return compile_schema(
        JobRecord,
        {
            **_FAILURE,
            **_COLUMN,
            "JobRecord.job": JOB,
            "JobRecord.spec_digest": _DIGEST,
            "JobRecord.leader": NODE,
            "JobRecord.token": Bounds(text_chars=255),
            "JobRecord.stage": _MAYBE_STAGE,
            "JobRecord.stages": Bounds(items=3 * MAX_STEPS),
            "JobRecord.nodes": Bounds(items=MAX_NODES, text_chars=64, pattern=WORD),
            "JobRecord.counters": _COUNTERS,
            "JobRecord.events": Bounds(items=MAX_EVENTS),
            "JobRecord.lock_epoch": Bounds(least=-1),
            "JobRecord.lock_members": Bounds(items=64),
            "AcceptorId.node": NODE,
            "AcceptorId.disk": NODE,
            "StageRecord.tasks": Bounds(most=MAX_TASKS),
            "StageRecord.partitions": Bounds(most=MAX_PARTITIONS),
            "StageRecord.places": _PLACES,
            "StageRecord.winners": Bounds(items=MAX_TASKS),
            "StageRecord.again": _TASKS,
            "Winner.worker": Bounds(most=MAX_NODES - 1),
            "Winner.digest": Bounds(bytes_len=64),
            "Winner.cuts": _CUTS,
            "Winner.places": nodes,
            "EventRecord.node": NODE,
            "EventRecord.text": Bounds(text_chars=MAX_EVENT_CHARS),
        },
    )


def pack_record(record: JobRecord) -> bytes:
    """Encode a record: the payload of the job's register."""
    return packed(_record_schema(), record)


def unpack_record(data: bytes) -> JobRecord:
    """Decode and check a record.

    Raises:
        MalformedFrame: whatever the bytes are, if they are no record.
    """
    record: JobRecord = unpacked(_record_schema(), data, MAX_RECORD_BYTES)
    return record
