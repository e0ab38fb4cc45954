"""An output is given up late, after two questions to everybody, and never in doubt."""

from __future__ import annotations

from mapreduce.losses import Losses

A, B = (0, 1), (0, 2)
NOTHING: frozenset[tuple[int, int]] = frozenset()


def test_what_is_missed_is_asked_for_at_once_and_once_more_before_it_is_given_up() -> None:
    losses = Losses(grace_s=5.0)
    assert losses.miss(frozenset({A}), 10.0)
    assert not losses.miss(frozenset({A}), 10.1)  # all have answered
    assert losses.due() == []
    assert losses.due_at == 15.0
    assert losses.miss(frozenset({A}), 15.0)
    assert not losses.miss(frozenset({A}), 15.1)
    assert losses.due() == [A]


def test_a_copy_that_came_meanwhile_saves_it() -> None:
    losses = Losses(grace_s=5.0)
    losses.miss(frozenset({A}), 10.0)
    losses.miss(frozenset({A}), 15.0)
    assert not losses.miss(NOTHING, 15.1)
    assert (losses.due(), losses.missed) == ([], 0)
    assert losses.miss(frozenset({A}), 16.0)  # missed again: from the beginning
    assert losses.due() == []


def test_each_output_has_its_own_time() -> None:
    losses = Losses(grace_s=5.0)
    losses.miss(frozenset({A}), 10.0)
    assert losses.miss(frozenset({A, B}), 12.0)
    assert losses.miss(frozenset({A, B}), 15.0)
    assert not losses.miss(frozenset({A, B}), 15.1)
    assert losses.due() == [A]
    assert losses.miss(frozenset({A, B}), 17.0)
    assert not losses.miss(frozenset({A, B}), 17.1)
    assert losses.due() == [A, B]


def test_in_doubt_nothing_is_missed() -> None:
    losses = Losses(grace_s=5.0)
    losses.miss(frozenset({A}), 10.0)
    losses.miss(frozenset({A}), 15.0)
    losses.doubt()
    assert (losses.due(), losses.missed) == ([], 0)
    assert losses.miss(frozenset({A}), 16.0)
