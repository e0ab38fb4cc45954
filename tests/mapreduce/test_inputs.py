"""Which files inputs stand for, in which order, and how they fall into splits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import Csv, FixedLength, Pairs, Text, WholeFile
from mapreduce.errors import InputError, UsageError
from mapreduce.inputs import Source, expand, open_source, plan_splits

fsspec = pytest.importorskip("fsspec")


def make(folder: Path, *names: str) -> None:
    """Make files that hold their own names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(inputs: list[str], **options: str) -> list[str]:
    return [source.name for source in expand(inputs, **options)]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def memory() -> Iterator[object]:
    """A file system of fsspec that lives in this process."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


# --- order --------------------------------------------------------------------------------------------


def test_inputs_are_read_in_the_order_they_are_given(tmp_path: Path) -> None:
    make(tmp_path, "b", "a", "c")
    assert names(["c", "a", "b"]) == ["c", "a", "b"]


def test_a_file_named_twice_is_read_twice(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    assert names(["a", "b", "a"]) == ["a", "b", "a"]


def test_a_directory_is_read_recursively_in_the_order_of_its_paths(tmp_path: Path) -> None:
    make(tmp_path, "d/b", "d/a/z", "d/a.txt", "d/a/b/c", "d/B", "d/ä")
    assert names(["d"]) == ["d/B", "d/a.txt", "d/a/b/c", "d/a/z", "d/b", "d/ä"]
    assert names(["d/"]) == names(["d"])


def test_a_directory_leaves_out_names_that_begin_with_a_dot_or_an_underscore(tmp_path: Path) -> None:
    make(tmp_path, "d/part-00000", "d/_SUCCESS", "d/.crc", "d/_temporary/part-00001", "d/.git/x", "d/a_b/c.d")
    assert names(["d"]) == ["d/a_b/c.d", "d/part-00000"]


def test_a_file_with_a_hidden_name_is_read_when_it_is_named(tmp_path: Path) -> None:
    make(tmp_path, "_a", "_d/b")
    assert names(["_a", "_d"]) == ["_a", "_d/b"]


def test_a_glob_is_sorted_and_matches_as_in_a_shell(tmp_path: Path) -> None:
    make(tmp_path, "b.txt", "a.txt", "_c.txt", ".d.txt", "e.csv", "f1", "f2")
    assert names(["*.txt"]) == ["_c.txt", "a.txt", "b.txt"]
    assert names(["f[12]", "?.csv"]) == ["f1", "f2", "e.csv"]


def test_two_asterisks_match_directories_at_any_depth_and_each_file_once(tmp_path: Path) -> None:
    make(tmp_path, "d/a.txt", "d/x/b.txt", "d/x/y/c.txt", "d/x/y/c.csv")
    assert names(["d/**/*.txt"]) == ["d/a.txt", "d/x/b.txt", "d/x/y/c.txt"]
    assert names(["d/**"]) == ["d/a.txt", "d/x/b.txt", "d/x/y/c.csv", "d/x/y/c.txt"]


def test_a_directory_that_a_glob_matches_is_read_as_a_directory(tmp_path: Path) -> None:
    make(tmp_path, "d1/a", "d1/_SUCCESS", "d2/b/c", "d3")
    assert names(["d*"]) == ["d1/a", "d2/b/c", "d3"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    make(tmp_path, "a[1].txt", "a1.txt")
    assert names(["a[1].txt"]) == ["a[1].txt"]


def test_paths_are_absolute_so_that_any_process_can_open_them(tmp_path: Path) -> None:
    make(tmp_path, "d/a")
    [source] = expand(["d"])
    assert source.path == str(tmp_path / "d" / "a")
    assert source.size_bytes == 3


def test_standard_input_is_the_file_it_was_copied_to(tmp_path: Path) -> None:
    make(tmp_path, "a", "copy")
    [first, second] = expand(["a", "-"], stdin_path=str(tmp_path / "copy"))
    assert (first.name, second.name, second.path) == ("a", "-", str(tmp_path / "copy"))
    assert second.splittable
    with pytest.raises(InputError, match="standard input"):
        expand(["-"])


def test_a_linked_directory_is_read_and_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "far/a", "d/b")
    (tmp_path / "d/link").symlink_to(tmp_path / "far")
    assert names(["d"]) == ["d/b", "d/link/a"]
    for name in ("up", "up again"):
        (tmp_path / "far" / name).symlink_to(tmp_path / "d")
    assert "contains itself" in refusal("d")


# --- what is not there --------------------------------------------------------------------------------


def refusal(given: str) -> str:
    with pytest.raises(InputError) as refused:
        expand([given])
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_missing_file_is_named_with_the_name_that_was_perhaps_meant(tmp_path: Path) -> None:
    make(tmp_path, "books/moby-dick.txt", "other")
    assert refusal("books/moby-dik.txt") == (
        "books/moby-dik.txt: no such file or directory; did you mean books/moby-dick.txt?"
    )
    assert refusal("nothing/like/it") == "nothing/like/it: no such file or directory"
    assert refusal("other/below") == "other/below: no such file or directory"


def test_a_glob_that_matches_nothing_is_refused() -> None:
    assert refusal("*.nothing") == "*.nothing: no file matches the pattern"


def test_a_directory_without_files_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "d/_SUCCESS")
    (tmp_path / "d/inner").mkdir()
    assert refusal("d").startswith("d: the directory holds no files")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "d/a")
    (tmp_path / "d/gone").symlink_to("nowhere")
    assert refusal("d") == "d/gone: a link that leads nowhere"


def test_a_pipe_is_refused_with_the_way_to_read_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "with - as the input" in refusal("pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "a").chmod(0)
    assert refusal("a") == "a: no permission to read it"


def test_a_name_that_is_no_path_is_refused() -> None:
    assert "zero byte" in refusal("a\0b")


def test_a_message_shows_unprintable_names_on_one_line() -> None:
    assert refusal("a\nb\udcff") == "a\\nb\\\\udcff: no such file or directory"


def test_files_of_the_ring_need_a_swarm() -> None:
    assert "swarm" in refusal("ring:books")


# --- URLs ---------------------------------------------------------------------------------------------


def test_a_file_url_is_the_local_file(tmp_path: Path) -> None:
    make(tmp_path, "d/a", "d/b")
    [a, b] = expand([f"file://{tmp_path}/d"])
    assert (a.name, a.path) == (f"file://{tmp_path}/d/a", f"{tmp_path}/d/a")
    assert names([f"file://{tmp_path}/d/*"]) == [a.name, b.name]


def test_urls_may_be_files_directories_and_globs(memory: object) -> None:
    for name in ("b.txt", "a.txt", "x/c.txt", "_SUCCESS", "x/.hidden"):
        fsspec.filesystem("memory").pipe(f"/d/{name}", name.encode())
    everything = ["memory:///d/a.txt", "memory:///d/b.txt", "memory:///d/x/c.txt"]
    assert names(["memory:///d"]) == everything
    assert names(["memory:///d/*.txt", "memory:///d/**/c.txt"]) == everything
    [one] = expand(["memory:///d/a.txt"])
    assert (one.name, one.size_bytes, one.splittable) == ("memory:///d/a.txt", 5, True)
    for source in expand(["memory:///d"]):
        with open_source(source.path) as file:
            assert source.path.endswith(file.read().decode())


def test_a_file_inside_an_archive_has_a_url_that_opens_it(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("one.txt", "in/two.txt", "three.csv"):
            archive.writestr(name, name)
    sources = expand([f"zip://*.txt::{tmp_path}/a.zip"])
    assert [source.name for source in sources] == [f"zip://one.txt::{tmp_path}/a.zip"]
    with open_source(sources[0].path) as file:
        assert file.read() == b"one.txt"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("memory://nothing/here", "no such file"),
        ("memory://nothing/*.txt", "no file matches the pattern"),
        ("nosuch://a/b", "Protocol not known: nosuch"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(memory: object, url: str, part: str) -> None:
    message = refusal(url)
    assert message.startswith(url)
    assert part in message


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert "s3fs" in refusal("s3://bucket/key")


# --- splits -------------------------------------------------------------------------------------------


def source(size_bytes: int, *, splittable: bool = True, name: str = "a") -> Source:
    return Source(path=f"/{name}", name=name, size_bytes=size_bytes, splittable=splittable)


@settings(derandomize=True, deadline=None)
@given(
    st.lists(st.integers(0, 3_000), max_size=4),
    st.integers(1, 700),
    st.sampled_from([Text(), FixedLength(7)]),
)
def test_the_splits_of_a_file_follow_each_other_from_its_start_to_its_end(
    sizes: list[int], split_bytes: int, reader: Text | FixedLength
) -> None:
    sources = [source(size, name=str(number)) for number, size in enumerate(sizes)]
    splits = plan_splits(sources, reader, split_bytes)
    for one in sources:
        own = [split for split in splits if split.name == one.name]
        assert own[0].start == 0
        assert own[-1].end == one.size_bytes
        assert all(before.end == after.start for before, after in pairwise(own))
        assert sum(split.size_bytes for split in own) == one.size_bytes
        longest = max(split_bytes, 7) + 4 if isinstance(reader, FixedLength) else split_bytes
        assert all(split.size_bytes <= 1.1 * longest for split in own)
        if isinstance(reader, FixedLength):
            assert all(split.start % 7 == 0 for split in own)


def test_a_small_rest_is_read_with_the_last_split() -> None:
    assert [split.end for split in plan_splits([source(109)], Text(), 100)] == [109]
    assert [split.end for split in plan_splits([source(111)], Text(), 100)] == [100, 111]


@pytest.mark.parametrize(
    ("reader", "splittable"),
    [
        (Text(), False),
        (Text(encoding="utf-16"), True),
        (WholeFile(), True),
        (Csv(), True),
        (Pairs(format="msgpack"), True),
    ],
)
def test_what_cannot_be_entered_midway_is_one_split(reader: Text, splittable: bool) -> None:
    [split] = plan_splits([source(10_000, splittable=splittable)], reader, 100)
    assert (split.start, split.end, split.size_bytes) == (0, -1, 10_000)


def test_compressed_files_are_not_split(tmp_path: Path) -> None:
    make(tmp_path, "a.gz", "b.BZ2", "c.xz", "d.zst", "e.lzma", "f.txt")
    assert [source.splittable for source in expand(["."])] == [False] * 5 + [True]


def test_an_empty_file_has_one_split_of_nothing() -> None:
    [split] = plan_splits([source(0)], Text(), 100)
    assert (split.start, split.end, split.size_bytes) == (0, 0, 0)


def test_planning_many_splits_opens_no_file() -> None:
    splits = plan_splits([source(20_000 << 10)], Text(), 1 << 10)  # there is no such file
    assert len(splits) == 20_000


def test_a_split_of_no_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 byte"):
        plan_splits([source(1)], Text(), 0)


def test_a_recursive_glob_does_not_go_round_in_a_circle_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "in.txt").write_text("x\n")
    (tmp_path / "a" / "up").symlink_to("..")
    with pytest.raises(InputError, match=r"a/up: the directory contains itself"):
        expand([f"{tmp_path}/**/in.txt"])


def test_an_input_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="empty name"):
        expand([""])
