"""How the bytes of an input become records.

A reader is an immutable value that a job's step holds; it follows `mapreduce.inputs.Reader`.  For a split
it yields batches (see `mapreduce.batches`).  Which bytes of a file a split covers is the reader's
business, with one rule: a record belongs to the split in which its first byte lies.

Every job imports this module, so it holds the reader that every job may need, `Text`, and finds the
others when they are first asked for:

    mapreduce.binary    WholeFile, FixedLength, and what `reader` makes of a function
    mapreduce.parsing   JsonLines, Pairs
    mapreduce.tables    Csv

⚙ Readers open the files they read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, overload

from mapreduce.errors import JobDefinitionError
from mapreduce.lines import (
    MAX_RECORD_BYTES,
    LineBatch,
    TextBatch,
    check_positive,
    codec_name,
    is_linewise,
    line_chunks,
    signature,
    text_batches,
)
from mapreduce.plan import Split
from mapreduce.streams import open_source

if TYPE_CHECKING:
    from mapreduce.binary import FixedLength, FunctionReader, WholeFile
    from mapreduce.parsing import JsonLines, Pairs
    from mapreduce.tables import Csv

__all__ = ["Csv", "FixedLength", "JsonLines", "Pairs", "Text", "WholeFile", "reader"]

_HOME = {
    "Csv": "tables",
    "FixedLength": "binary",
    "JsonLines": "parsing",
    "Pairs": "parsing",
    "WholeFile": "binary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"mapreduce.{_HOME[name]}"), name)
    globals()[name] = value
    return value


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
        check_positive("max_record_bytes", self.max_record_bytes)

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

    def batches(self, split: Split, batch_bytes: int) -> Generator[LineBatch | TextBatch, None, None]:
        """Yield a split's lines, some `batch_bytes` at a time.

        Raises:
            InputError: the file cannot be read, or a line is too long.
        """
        codec = codec_name(self.encoding, self.errors)
        with open_source(split.path, split.name) as file:
            if not is_linewise(codec):
                yield from text_batches(file, split, codec, self.errors, batch_bytes, self.max_record_bytes)
                return
            for offset, data, stop in line_chunks(file, split, batch_bytes, self.max_record_bytes):
                begin = 0
                if offset == 0:
                    mark = signature(codec)
                    begin = len(mark) if mark and data.startswith(mark) else 0
                if begin < stop:
                    yield LineBatch(split, offset, data, begin, stop, codec, self.errors)


@overload
def reader(function: Callable[[BinaryIO], Iterable[Any]], /) -> FunctionReader: ...
@overload
def reader(*, pairs: bool = False) -> Callable[[Callable[[BinaryIO], Iterable[Any]]], FunctionReader]: ...
def reader(
    function: Callable[[BinaryIO], Iterable[Any]] | None = None, /, *, pairs: bool = False
) -> FunctionReader | Callable[[Callable[[BinaryIO], Iterable[Any]]], FunctionReader]:
    """Make a reader of a function that takes a binary file and yields its records.

    The file is open at its start and decompressed; it can seek if it is not compressed.  Each file is
    read by one task.

        @reader
        def messages(file):
            yield from mailbox_of(file)

    Args:
        function: takes the file, yields records.
        pairs: True: the records are (key, value) pairs, and the mapper takes two arguments.
    """
    from mapreduce.binary import FunctionReader

    if function is None:
        return lambda function: FunctionReader(function, pairs)
    if not callable(function):
        raise JobDefinitionError(f"reader({function!r}): expected a function of a binary file")
    return FunctionReader(function, pairs)
