"""How a job's spec becomes bytes, and bytes a spec again.

A spec is no message: it lies in a segment.  It is packed by a schema like those of messages, so what a peer
reads of it is checked as strictly as what a stranger sends, and nothing in it is ever a pickle that a peer
would open.  `p2p.job_protocol` packs records in the same way; this is what a client needs, by itself.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import Any

import msgpack

from mapreduce.spec import MAX_STEPS, MAX_TASKS, JobSpec
from p2p.errors import MalformedFrame
from p2p.schema import Bounds, Schema, compile_schema

__all__ = ["MAX_SPEC_BYTES", "pack_spec", "packed", "spec_digest", "unpack_spec", "unpacked"]

MAX_SPEC_BYTES = 128 << 20


@cache
def _spec_schema() -> Schema:
    path = Bounds(text_chars=64 << 10)
    return compile_schema(
        JobSpec,
        {
            "InputSplit.path": path,
            "InputSplit.name": path,
            "InputSplit.key": path,
            "InputSplit.end": Bounds(least=-1),
            "StepPlan.after": Bounds(items=MAX_STEPS, most=MAX_STEPS),
            "StepPlan.splits": Bounds(items=MAX_TASKS),
            "StepPlan.samples": Bounds(items=1_024),
            "JobPlan.steps": Bounds(items=MAX_STEPS),
            "JobPlan.priority": Bounds(least=-10, most=10),
            "JobCode.job": Bounds(bytes_len=64 << 20),
            "JobCode.files": Bounds(items=4_096, text_chars=4_096, bytes_len=16 << 20),
            "JobCode.root": path,
            "JobCode.digest": Bounds(text_chars=64, pattern=r"[0-9a-f]*"),
            "JobSpec.param_names": Bounds(items=10_000),
            "JobSpec.side_files": Bounds(items=4_096, text_chars=4_096, bytes_len=64 << 20),
            "PackedColumn.data": Bounds(bytes_len=16 << 20),
        },
    )


def pack_spec(spec: JobSpec) -> bytes:
    """Encode a spec.

    Raises:
        MalformedFrame: a value that msgpack cannot carry.
    """
    return packed(_spec_schema(), spec)


def unpack_spec(data: bytes) -> JobSpec:
    """Decode and check a spec.

    Raises:
        MalformedFrame: whatever the bytes are, if they are no spec.
    """
    spec: JobSpec = unpacked(_spec_schema(), data, MAX_SPEC_BYTES)
    return spec


def spec_digest(packed: bytes) -> str:
    """Return the digest by which a packed spec is known, 64 hexadecimal digits."""
    return blake2b(packed, digest_size=32, person=b"ringreduce.spec").hexdigest()


def packed(schema: Schema, value: Any) -> bytes:
    """Encode a value by its schema.

    Raises:
        MalformedFrame: a value that msgpack cannot carry.
    """
    try:
        # File names that are no text arrive as lone surrogates.
        data: bytes = msgpack.packb(schema.pack(value), unicode_errors="surrogatepass")
    except (ValueError, OverflowError, UnicodeError) as error:
        raise MalformedFrame(f"{schema.type.__name__} cannot be packed: {error}") from None
    return data


def unpacked(schema: Schema, data: bytes, max_bytes: int) -> Any:
    """Decode and check what `packed` gave, or what somebody says it did.

    Raises:
        MalformedFrame: it is longer than `max_bytes`, or none of that schema.
    """
    if len(data) > max_bytes:
        raise MalformedFrame(f"{len(data):,} bytes, at most {max_bytes:,} are read")
    try:
        plain = msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            strict_map_key=True,
            unicode_errors="surrogatepass",
            max_array_len=min(MAX_TASKS, len(data)),
            max_map_len=min(MAX_TASKS, len(data)),
            max_str_len=len(data),
            max_bin_len=len(data),
            max_ext_len=0,
        )
    except (ValueError, RecursionError, UnicodeError) as error:
        raise MalformedFrame(f"the msgpack is damaged: {type(error).__name__} {error}".strip()) from None
    return schema.unpack(plain)
