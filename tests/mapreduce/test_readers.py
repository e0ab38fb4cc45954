"""What every reader does: it travels, reads an empty file, and costs the imports of what it needs only.

What each gives of its files stands beside it: lines in `test_readers_text`, JSON and pairs in
`test_readers_parsing`, CSV in `test_readers_tables`, bytes and users' own in `test_readers_binary`.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from mapreduce import Csv, FixedLength, JsonLines, Pairs, Text, WholeFile
from mapreduce.inputs import Reader
from tests.mapreduce.reading import read

ALL: list[Reader] = [
    Text("latin-1"),
    WholeFile("utf-8"),
    FixedLength(10),
    JsonLines(),
    Csv(delimiter=";", header=("a", "b")),
    Pairs("jsonl"),
]


@pytest.mark.parametrize("one", ALL)
def test_a_reader_survives_pickling_and_equals_its_copy(one: Reader) -> None:
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(pickle.loads(cloudpickle.dumps(one))) == hash(one)


@pytest.mark.parametrize("one", [reader for reader in ALL if reader != FixedLength(10)])
def test_an_empty_file_has_no_record_but_as_a_whole_file(tmp_path: Path, one: Reader) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert read(tmp_path / "a", one) == ([""] if isinstance(one, WholeFile) else [])


def test_importing_readers_and_inputs_loads_no_library_that_only_some_jobs_need() -> None:
    code = (
        "import sys; import mapreduce.readers, mapreduce.inputs;"
        "print(*{'csv', 'json', 'gzip', 'bz2', 'lzma', 'msgpack', 'fsspec', 'zstandard', 'glob', 'struct'}"
        " & set(sys.modules))"
    )
    command = [sys.executable, "-S", "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
