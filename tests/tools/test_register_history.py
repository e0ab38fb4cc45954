"""The exact check of a register's history, held against a search over all orders."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tools.simulation.register_history import CLOSING, LogHistory, NotLinearizable


@dataclass(frozen=True)
class Call:
    """One operation: when it began and ended, what it appends (None: a look), what it was shown."""

    began: float
    ended: float
    token: str | None
    shown: tuple[str, ...]


def checked(calls: Sequence[Call]) -> bool:
    """What the exact check says to a history."""
    history = LogHistory()
    moments = sorted(
        [(call.began, 0, at) for at, call in enumerate(calls)]
        + [(call.ended, 1, at) for at, call in enumerate(calls)]
    )
    before: dict[int, int] = {}
    try:
        for _, is_end, at in moments:
            if is_end:
                history.end(f"call {at}", calls[at].token, calls[at].shown, before[at])
            else:
                before[at] = history.acknowledged
                history.begun.update(filter(None, [calls[at].token]))
    except NotLinearizable:
        return False
    return True


def searched(calls: Sequence[Call]) -> bool:
    """Whether some order of the calls explains the history (Wing and Gong's search, 1993).

    An append is two steps, the append and a look, for whoever gets no answer may have tried twice. An order
    of the steps is legal if an append's look comes behind it, if no step of a call stands before one of a
    call that had ended before it began, and if every look, made in that order on one log, shows what it
    showed.
    """

    def extend(waiting: frozenset[int], appended: frozenset[int], log: tuple[str, ...]) -> bool:
        if not waiting:
            return True
        first_end = min(calls[at].ended for at in waiting)
        for at in waiting:
            call = calls[at]
            if call.began > first_end:
                continue
            if call.token is not None and at not in appended:
                closed = bool(log) and log[-1].startswith(CLOSING)
                after = log if closed else (*log, call.token)
                if extend(waiting, appended | {at}, after):
                    return True
            elif call.shown == log and extend(waiting - {at}, appended, log):
                return True
        return False

    return extend(frozenset(range(len(calls))), frozenset(), ())


def made_up(rng: random.Random, count: int) -> list[Call]:
    """A history that really happened on one register, each call at a moment within it."""
    moments = sorted(rng.random() for _ in range(count))
    log: tuple[str, ...] = ()
    calls = []
    for number, at in enumerate(moments):
        token = None
        if rng.random() < 0.6:
            token = f"{CLOSING if rng.random() < 0.1 else ''}t{number}"
            if not (log and log[-1].startswith(CLOSING)):
                log = (*log, token)
        calls.append(Call(at - rng.random() * 0.3, at + rng.random() * 0.3, token, log))
    return calls


def spoilt(rng: random.Random, calls: list[Call]) -> list[Call]:
    """The same with one answer that somebody got wrong, or one moment that was another."""
    at = rng.randrange(len(calls))
    call, other = calls[at], rng.choice(calls)
    if rng.random() < 0.5:
        wrong = Call(call.began, call.ended, call.token, other.shown)
    else:
        shift = rng.uniform(-0.5, 0.5)
        wrong = Call(call.began + shift, call.ended + shift, call.token, call.shown)
    return [*calls[:at], wrong, *calls[at + 1 :]]


@pytest.mark.parametrize("block", range(5))
def test_what_happened_on_one_register_is_found_linearizable(block: int) -> None:
    for seed in range(200):
        calls = made_up(random.Random(f"{block} {seed}"), 8)
        assert checked(calls)
        assert searched(calls)


@pytest.mark.parametrize("block", range(5))
def test_the_exact_check_and_the_search_agree_on_spoilt_histories(block: int) -> None:
    verdicts = []
    for seed in range(400):
        rng = random.Random(f"spoilt {block} {seed}")
        calls = spoilt(rng, made_up(rng, 6))
        verdict = checked(calls)
        assert verdict == searched(calls), calls
        verdicts.append(verdict)
    assert 50 < sum(verdicts) < 350  # both kinds were among them


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ([("a", "a"), ("b", "b")], "another token"),
        ([("a", "a"), (None, "")], "had been shown before"),
        ([("a", "a"), (None, "a c")], "nobody has begun"),
        ([("a", "a"), ("b", "a b a")], "stands in it twice"),
        ([("a", "a"), ("b", "a")], "is missing"),
        ([("!a", "!a"), ("b", "!a b")], "had been closed"),
    ],
)
def test_the_reason_is_told(calls: list[tuple[str | None, str]], reason: str) -> None:
    history = LogHistory(begun={"a", "b", "!a"})
    *before, (token, shown) = calls
    for early, seen in before:
        history.end("somebody", early, seen.split(), history.acknowledged)
    with pytest.raises(NotLinearizable, match=reason):
        history.end("somebody", token, shown.split(), history.acknowledged)


def test_an_append_that_was_tried_twice_may_be_shown_what_came_after_it() -> None:
    history = LogHistory(begun={"a", "b"})
    history.end("first", "b", ["a", "b"], 0)
    history.end("second", "a", ["a", "b"], 0)
    assert (history.appends, history.acknowledged) == (2, 2)


def test_an_append_cannot_have_been_there_before_it_began() -> None:
    history = LogHistory(begun={"a"})
    history.end("look", None, ["a"], 0)
    with pytest.raises(NotLinearizable, match="before it began"):
        history.end("append", "a", ["a"], history.acknowledged)
