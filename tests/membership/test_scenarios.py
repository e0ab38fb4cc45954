"""The transcripts under tests/scenarios/membership come out as they are written.

After a change that is meant, write them anew and read the difference:

    REWRITE_SCENARIOS=1 pytest tests/membership/test_scenarios.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.membership.script import rewrite

SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios" / "membership").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_transcript_comes_out_as_written(path: Path) -> None:
    written = path.read_text()
    happened = rewrite(written)
    if os.environ.get("REWRITE_SCENARIOS"):
        path.write_text(happened)
    else:
        assert happened == written


def test_there_are_transcripts() -> None:
    assert len(SCENARIOS) >= 8


def test_a_transcript_with_a_wrong_answer_is_noticed() -> None:
    text = "machine n00 knows n01\n----\nok\n\nview\n----\nn00 dead @1 10.0.0.0:7000\n"
    assert rewrite(text) != text
