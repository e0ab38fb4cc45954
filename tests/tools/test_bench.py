"""The benchmark is fair: fixed inputs, all sides give the same answer, and a wrong answer does not pass."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from mapreduce.examples.log_hits import LINE
from tools import bench
from tools.bench_inputs import InputSpec, log_lines, make, read_books, sort_records, text_lines
from tools.bench_measure import CommandFailed, TookTooLong, Usage, measure
from tools.bench_output import digest


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    rng = random.Random(2)
    for number in range(3):
        words = [f"w{number}{rng.randrange(500)}" for _ in range(3000)]
        lines = [" ".join(words[at : at + 10]) for at in range(0, len(words), 10)]
        (folder / f"{number}.txt").write_text("\ufeff" + "\n\n".join(lines), encoding="utf-8")
    return folder


# --- inputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "sort", "logs"])
def test_the_same_size_and_seed_give_the_same_bytes_and_another_seed_others(
    tmp_path: Path, books: Path, kind: str
) -> None:
    def content(cache: str, seed: int) -> bytes:
        spec = InputSpec(kind=kind, size_bytes=50_000, seed=seed, books=str(books) if kind == "text" else "")
        return b"".join(path.read_bytes() for path in make(spec, tmp_path / cache))

    assert content("a", 1) == content("b", 1) != content("a", 2)


def test_an_input_is_made_once_and_anew_if_it_was_left_unfinished_or_made_of_other_books(
    tmp_path: Path, books: Path
) -> None:
    spec = InputSpec(kind="text", size_bytes=50_000, books=str(books))
    first = make(spec, tmp_path)[0]
    good = first.read_bytes()
    first.write_bytes(b"touched")
    assert make(spec, tmp_path)[0].read_bytes() == b"touched"
    (first.parent / "manifest.json").unlink()
    assert make(spec, tmp_path)[0].read_bytes() == good
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "book.txt").write_text("other words\n" * 9)
    other = InputSpec(kind="text", size_bytes=50_000, books=str(tmp_path / "other"))
    assert b"other" in make(other, tmp_path)[0].read_bytes()


def test_text_has_its_size_and_keeps_growing_its_vocabulary(books: Path) -> None:
    book_lines = read_books(str(books))
    known = {word for book in book_lines for line in book for word in line.split()}
    lines = text_lines(book_lines, random.Random(1))
    once = sum(map(len, book_lines))
    sizes, seen = [], set(known)
    for _ in range(3):
        for line in islice(lines, once):
            seen.update(line.decode().split())
        sizes.append(len(seen))
    assert len(known) < sizes[0] < sizes[1] < sizes[2] < 2 * len(known)


def test_text_documents_together_have_the_size_that_was_asked_for(tmp_path: Path, books: Path) -> None:
    paths = make(InputSpec(kind="text", size_bytes=100_000, books=str(books)), tmp_path)
    assert 100_000 <= sum(path.stat().st_size for path in paths) < 105_000
    assert all(path.read_bytes().endswith(b"\n") for path in paths)


def test_a_folder_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match="holds no text"):
        read_books(str(tmp_path))


def test_the_standard_library_serves_where_there_are_no_books() -> None:
    assert sum(len(line.split()) for book in read_books("") for line in book) > 100_000


def test_sort_records_have_a_hundred_bytes_and_keys_that_do_not_come_twice() -> None:
    records = list(sort_records(99_999, random.Random(1)))
    assert {len(record) for record in records} == {100}
    assert len(records) == len({record[:10] for record in records}) == 1000


def test_log_lines_are_in_the_combined_format_and_urls_follow_zipf() -> None:
    lines = [line.decode() for line in log_lines(400_000, random.Random(1))]
    matches = [LINE.match(line) for line in lines]
    assert all(match is not None and line.endswith('"\n') for match, line in zip(matches, lines, strict=True))
    urls = Counter(match["request"] for match in matches if match is not None)
    (_, first), (_, second) = urls.most_common(2)
    assert 1.5 < first / second < 2.7


# --- answers ----------------------------------------------------------------------------------------


def written(folder: Path, *parts: str) -> Path:
    folder.mkdir()
    for number, part in enumerate(parts):
        (folder / f"part-{number:05}").write_text(part)
    (folder / "_SUCCESS").write_text("")
    return folder


def test_an_answer_is_the_same_in_any_order_and_any_parts(tmp_path: Path) -> None:
    one = digest(written(tmp_path / "a", 'x\t[1, 2]\ny\t["b","c"]\nz\t3\n'), ordered=False)
    two = digest(written(tmp_path / "b", "z\t3\n", 'y\t["b", "c"]\nx\t[1,2]\n'), ordered=False)
    assert one == two


@pytest.mark.parametrize(
    "other", ["x\t1\n", "x\t1\nx\t1\ny\t2\n", "x\t2\ny\t1\n", "x\t1\ny\t2\ny\t2\nx\t1\n"]
)
def test_a_line_too_few_too_many_or_changed_is_another_answer(tmp_path: Path, other: str) -> None:
    right = digest(written(tmp_path / "a", "x\t1\ny\t2\n"), ordered=False)
    assert digest(written(tmp_path / "b", other), ordered=False) != right


def test_where_order_counts_it_counts_across_parts_too(tmp_path: Path) -> None:
    right = digest(written(tmp_path / "a", "aabb", "cc"), ordered=True)
    assert digest(written(tmp_path / "b", "aa", "bbcc"), ordered=True) == right
    assert digest(written(tmp_path / "c", "bb", "aacc"), ordered=True) != right


@pytest.mark.parametrize("name", list(bench.ROWS))
def test_all_sides_of_a_row_give_the_same_answer(tmp_path: Path, books: Path, name: str) -> None:
    kind = bench.ROWS[name].kind
    spec = InputSpec(kind=kind, size_bytes=40_000, books=str(books) if kind == "text" else "")
    inputs = make(spec, tmp_path)
    lines = bench.run_row(name, inputs, bench.SIDES, 1, tmp_path / "out")
    assert [line.side for line in lines] == list(bench.SIDES)
    assert all(line.wall_s > 0 and line.cpu_s > 0 and line.peak_process_bytes > 1 << 20 for line in lines)
    assert not (tmp_path / "out").exists()


def test_a_side_that_gives_another_answer_ends_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command_of(side: str, row: bench.Row, inputs: object, out: Path) -> list[str]:
        code = f"import os; os.mkdir({str(out)!r}); open({str(out / 'part-0')!r}, 'w').write({side!r})"
        return [sys.executable, "-c", code]

    monkeypatch.setattr(bench, "command_of", command_of)
    with pytest.raises(bench.AnswersDiffer, match="wordcount: pair gave"):
        bench.run_row("wordcount", [tmp_path / "input"], ["single", "pair"], 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- measuring --------------------------------------------------------------------------------------


def test_what_a_child_of_the_command_took_is_counted(tmp_path: Path) -> None:
    work = "import time; data = bytearray(80_000_000)\nwhile time.process_time() < 0.2: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}], check=True)"
    usage = measure([sys.executable, "-c", parent], environment={}, directory=tmp_path)
    assert usage.cpu_s > 0.2
    assert usage.wall_s > 0.2
    assert usage.peak_process_bytes > 80_000_000
    assert usage.peak_tree_bytes > 80_000_000 or sys.platform != "linux"


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"ended with 3:\nno luck"):
        measure([sys.executable, "-c", "print('no luck'); exit(3)"], environment={}, directory=tmp_path)


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    said = tmp_path / "child"
    child = f"import os, time; open({str(said)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(TookTooLong, match="not done within 2 s"):
        measure([sys.executable, "-c", parent], environment={}, directory=tmp_path, limit_s=2)
    if sys.platform == "linux" and said.exists():
        with contextlib.suppress(ProcessLookupError):
            ended = os.pidfd_open(int(said.read_text()))
            assert select.select([ended], [], [], 10.0)[0]
            os.close(ended)


def test_an_interrupted_measurement_leaves_no_process_behind(tmp_path: Path) -> None:
    begun: list[int] = []

    def interrupt(pid: int) -> None:
        begun.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            environment={},
            directory=tmp_path,
            meanwhile=interrupt,
        )
    with pytest.raises(ProcessLookupError):
        os.kill(begun[0], 0)


def usage_of(wall_s: float) -> Usage:
    return Usage(wall_s=wall_s, cpu_s=2 * wall_s, peak_process_bytes=10_000_000, peak_tree_bytes=0)


def test_a_line_has_medians_and_the_ratio_of_walls() -> None:
    line = bench.summarised("sort", "ours", [usage_of(9), usage_of(1), usage_of(2)], single_s=4)
    assert (line.wall_s, line.cpu_s, line.ratio, line.walls_s) == (2, 4, 0.5, (9, 1, 2))


def test_tables_show_every_line_for_people_and_for_markdown() -> None:
    lines = [bench.summarised("sort", side, [usage_of(2)], single_s=4) for side in ("single", "ours")]
    text = bench.table(lines, markdown=False).split("\n")
    assert [row.split()[-6:] for row in text[1:]] == [["s", "0.50", "4.00", "s", "10", "MB"]] * 2
    markdown = bench.table(lines, markdown=True).split("\n")
    assert {row.count("|") for row in markdown} == {len(bench.HEADINGS) + 1}
    assert json.loads(bench.as_json(lines, {"rounds": 1}))["lines"][1]["ratio"] == 0.5


def test_startup_measures_a_bare_interpreter_beside_our_job(tmp_path: Path) -> None:
    single, ours = bench.measure_startup(tmp_path, rounds=1)
    assert single.ratio == 1
    assert ours.ratio is not None
    assert ours.ratio > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--rows", "sort,nothing"], "'nothing' is none of wordcount"),
        (["run", "--size", "many"], "not a size"),
        (["run", "--size", "10"], "not between"),
        (["run", "--rounds", "0"], "whole number above 0"),
        ([], "required"),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_makes_inputs_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--cache", str(tmp_path), "--rows", "log-hits", "--size", "20kB"]
    assert bench.main(["make", *place]) == 0
    assert capsys.readouterr().out == ""
    report = tmp_path / "report.json"
    measuring = ["--rounds", "1", "--sides", "single,pair", "--json", str(report)]
    assert bench.main(["run", *place, *measuring]) == 0
    assert "hits and bytes by URL  pair" in capsys.readouterr().out
    assert {line["side"] for line in json.loads(report.read_text())["lines"]} == {"single", "pair"}
