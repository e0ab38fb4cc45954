"""What the README says of tests and code is so: every test that it names exists, and every name in a file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README)))
FILES = sorted(set(re.findall(r"`((?:mapreduce|membership|p2p|tools)/[\w/]+\.py)`", README)))
NAMES = sorted(set(re.findall(r"`((?:mapreduce|membership|p2p)/\w+\.py)`\s+`(\w+)`", README)))
PROMISES = [f"G{number}" for number in range(1, 10)]


def defined_in(path: str) -> set[str]:
    """The functions and classes of a file, and what it gives names to."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return named | assigned


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name in defined_in(path)


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_what_is_named_stands_in_its_file(path: str, name: str) -> None:
    assert name in defined_in(path)


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_has_a_test_that_shows_it(promise: str) -> None:
    (row,) = [line for line in section("What is promised").splitlines() if line.startswith(f"| {promise} |")]
    assert re.search(r"`tests/[\w/]+\.py::\w+`", row)


@pytest.mark.parametrize("what", ["record", "claim", "rumour", "ballot"])
def test_the_way_of_each_thing_is_told_by_names_that_are_checked(what: str) -> None:
    told = section("How a record, a claim, a rumour and a ballot travel")
    way = re.split(r"\n\*A |\*a (?=record)", told)
    (steps,) = [one for one in way if one.startswith(f"{what}*")]
    assert len(re.findall(r"`\w+/\w+\.py`\s+`\w+`", steps)) >= 7


def test_short_names_in_tables_stand_beside_the_file_that_is_named_before_them() -> None:
    for row in README.splitlines():
        if row.startswith("| ") and ".py`" in row:
            package = ""
            for path, name in re.findall(r"`((?:\w+/)*)(\w+\.py)`", row):
                package = path or package or "mapreduce/"
                assert (ROOT / package / name).is_file(), f"{name} in {row}"
