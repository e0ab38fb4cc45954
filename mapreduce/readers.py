"""How the bytes of an input become records.

A reader is an immutable value that a job's step holds.  For a split it yields batches (see
`mapreduce.batches`); which bytes of a file a split covers is the reader's business, with one rule: a
record belongs to the split in which its first byte lies.

⚙ Readers open the files they read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from mapreduce.batches import Batch
from mapreduce.errors import JobDefinitionError
from mapreduce.lines import (
    MAX_RECORD_BYTES,
    LineBatch,
    codec_name,
    is_linewise,
    line_chunks,
    signature,
    text_batches,
)
from mapreduce.plan import Split
from mapreduce.streams import open_source


@dataclass(frozen=True, slots=True)
class Text:
    """Lines of text, without their line ends (\\n, \\r\\n or \\r); empty lines are records too.

    A byte order mark at the start of a file is taken off.

    Attributes:
        encoding: as Python names it.
        errors: what to do with bytes that are not valid: "strict" makes them an error that names the
            place; "replace", "ignore", "backslashreplace" and "surrogateescape" are Python's.
        max_record_bytes: a longer line is an error.
    """

    encoding: str = "utf-8"
    errors: str = "strict"
    max_record_bytes: int = MAX_RECORD_BYTES

    gives_pairs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        codec_name(self.encoding, self.errors)
        if self.max_record_bytes < 1:
            raise JobDefinitionError(
                f"max_record_bytes={self.max_record_bytes}: a record needs a byte at least"
            )

    @property
    def batch_kinds(self) -> tuple[str, ...]:
        """Which kinds of `@batch` mappers it can feed."""
        return ("records", "text", "bytes") if self.splittable else ("records", "text")

    @property
    def splittable(self) -> bool:
        """True when a plain file can be entered midway; not so in UTF-16 and other encodings with a state."""
        return is_linewise(codec_name(self.encoding, self.errors))

    def alignment_bytes(self, path: str) -> int:  # noqa: ARG002  # all files are alike
        """Return 1 if a file can be entered anywhere, 0 if only at its start."""
        return int(self.splittable)

    def batches(self, split: Split, batch_bytes: int) -> Iterator[Batch]:
        """Yield a split's lines, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, or a line is too long.
        """
        codec = codec_name(self.encoding, self.errors)
        with open_source(split.path, split.name) as file:
            if is_linewise(codec):
                yield from self._line_batches(file, split, codec, batch_bytes)
            else:
                yield from text_batches(file, split, codec, self.errors, batch_bytes, self.max_record_bytes)

    def _line_batches(self, file: BinaryIO, split: Split, codec: str, batch_bytes: int) -> Iterator[Batch]:
        for offset, data, stop in line_chunks(file, split, batch_bytes, self.max_record_bytes):
            begin = 0
            if offset == 0:
                mark = signature(codec)
                begin = len(mark) if mark and data.startswith(mark) else 0
            if begin < stop:
                yield LineBatch(split, offset, data, begin, stop, codec, self.errors)
