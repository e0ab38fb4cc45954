"""What names stand for: which entry wins, how catalogues become alike, which of several puts gets a name."""

from __future__ import annotations

import difflib
import random
from dataclasses import replace
from itertools import count, permutations

import pytest

from membership.view import NodeId
from p2p.catalogue import CLAIM_S, REMOVAL_KEPT_S, Catalogue, Entry, supersedes, why_no_name
from p2p.file_questions import ClaimName, KeepName, NameClaimed, NameKept, UnclaimName
from p2p.naming import ROUND_LIMIT_S, TRIES, Named, Namings, Told
from p2p.transport import Connection

PEERS = [NodeId(name) for name in "abcde"]
CLIENT = (Connection(), 1)


def entry(name: str = "x", version: int = 1, file: str = "a" * 40, **more: object) -> Entry:
    return Entry(name=name, version=version, file=file, **more)  # type: ignore[arg-type]


# -- entries --------------------------------------------------------------------------------------------


def test_whatever_the_order_the_same_entry_stands() -> None:
    entries = [entry(version=1), entry(version=2, file="b" * 40), entry(version=2, file="c" * 40)]
    for order in permutations(entries):
        catalogue = Catalogue(order)
        assert catalogue.get("x") == entries[2]
        assert catalogue.state == Catalogue([entries[2]]).state


def test_a_removal_hides_a_name_and_is_not_undone_by_older_news() -> None:
    catalogue = Catalogue([entry(version=1), entry(version=2, file="b" * 40, is_removal=True)])
    assert not catalogue.learn(entry(version=1))
    assert catalogue.get("x") is None
    assert catalogue.of_file("a" * 40) is None
    assert list(catalogue.entries()) == []
    assert catalogue.learn(entry(version=3, file="c" * 40))
    assert catalogue.get("x") is not None


def test_an_entry_whose_time_is_over_stands_for_nothing_and_is_forgotten_after_a_while() -> None:
    catalogue = Catalogue([entry(file="b" * 40, expires_at_s=50.0), entry("y")])
    assert catalogue.expire(49.0) == []
    assert catalogue.get("x") is not None
    assert catalogue.expire(50.0) == []
    assert catalogue.get("x") is None
    assert catalogue.of_file("b" * 40) is None
    assert [one.name for one in catalogue.entries()] == ["y"]
    assert catalogue.claim("x", "put", 0.0, replaces=False) == ("", 1)
    assert [one.name for one in catalogue.expire(50.0 + REMOVAL_KEPT_S)] == ["x"]
    assert catalogue.state == Catalogue([entry("y")]).state


def test_nobody_brings_back_what_an_entry_whose_time_is_over_has_replaced() -> None:
    late = entry(version=2, file="b" * 40, expires_at_s=50.0)
    here, away = Catalogue([late]), Catalogue([entry(version=1)])
    here.expire(60.0)
    better, wanted = here.compare(away.rows("", 10), "", "")
    assert (better, wanted) == ([late], [])
    assert away.learn(late, 60.0)
    assert away.get("x") is None
    assert away.state == here.state


def test_names_are_listed_in_order_by_prefix_and_from_a_place_on() -> None:
    catalogue = Catalogue([entry(name) for name in ("b/2", "a", "b/1", "c")])
    assert [one.name for one in catalogue.entries("b/")] == ["b/1", "b/2"]
    assert [one.name for one in catalogue.entries("", "b/1")] == ["b/2", "c"]


def test_a_name_that_may_have_been_meant_is_sought_among_its_neighbours_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = "warehouse/events/" * 20
    catalogue = Catalogue([entry(f"{start}part-{number:05}.json") for number in range(1_000)])
    compared: list[int] = []
    usual = difflib.get_close_matches

    def count(word: str, names: list[str], n: int) -> list[str]:
        compared.extend(len(name) for name in (word, *names))
        return usual(word, names, n)

    monkeypatch.setattr(difflib, "get_close_matches", count)
    assert catalogue.near(f"{start}part-00500.jsn") == f"{start}part-00500.json"
    assert len(compared) <= 101
    assert max(compared) <= 64
    assert catalogue.near("quite another one") == ""
    catalogue.learn(entry(f"{start}part-00500.json", version=2, is_removal=True))
    assert catalogue.near(f"{start}part-00500.jsn") != f"{start}part-00500.json"


@pytest.mark.parametrize("seed", range(10))
def test_two_catalogues_that_compare_page_by_page_become_alike(seed: int) -> None:
    rng = random.Random(seed)
    mine, theirs = Catalogue(), Catalogue()
    for number in range(60):
        for catalogue in rng.sample([mine, theirs], rng.randrange(1, 3)):
            version = rng.randrange(1, 3)
            catalogue.learn(entry(f"n{number}", version, rng.choice("ab") * 40))
    after = ""
    for _ in range(60):
        rows = theirs.rows(after, 7)
        last = rows[-1].name if len(rows) == 7 else ""
        better, wanted = mine.compare(rows, after, last)
        for one in better:
            theirs.learn(one)
        for name in wanted:
            known = theirs.known(name)
            assert known is not None
            mine.learn(known)
        after = last
        if not last:
            break
    assert mine.state == theirs.state


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\nb", "a*", "x" * 513])
def test_what_cannot_be_a_name_is_said_why(name: str) -> None:
    assert why_no_name(name)


def test_digests_must_fit_the_size() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        entry(size_bytes=11, block_bytes=10, digests=bytes(16))


# -- claims ---------------------------------------------------------------------------------------------


def test_a_claim_excludes_others_until_it_is_given_back_or_runs_out() -> None:
    catalogue = Catalogue()
    assert catalogue.claim("x", "1", 0.0, replaces=False) == ("", 0)
    assert catalogue.claim("x", "1", 1.0, replaces=False) == ("", 0)
    assert catalogue.claim("x", "2", 2.0, replaces=False)[0] == "busy"
    catalogue.unclaim("x", "2")
    assert catalogue.claim("x", "2", 2.0, replaces=False)[0] == "busy"
    assert catalogue.claim("x", "2", 1.0 + CLAIM_S, replaces=False)[0] == ""
    catalogue.unclaim("x", "2")
    assert catalogue.claim("x", "3", 2.0, replaces=False)[0] == ""


def test_who_asks_again_for_what_it_has_been_given_gets_the_same() -> None:
    catalogue = Catalogue([entry(version=4)])
    assert catalogue.claim("x", "a" * 40, 0.0, replaces=False) == ("", 3)
    assert catalogue.claim("x", "b" * 40, 0.0, replaces=False) == ("exists", 4)
    assert catalogue.claim("x", "b" * 40, 0.0, replaces=True) == ("", 4)


# -- naming ---------------------------------------------------------------------------------------------


class Ring:
    """Peers that answer at once, but for those that are silent; several coordinators over one another."""

    def __init__(self) -> None:
        self.catalogues = {node: Catalogue() for node in PEERS}
        self.silent: set[NodeId] = set()
        self.ended: list[Named] = []

    def perform(self, namings: Namings, steps: list[Told | Named], now: float, rng: random.Random) -> None:
        waiting = list(steps)
        while waiting:
            step = waiting.pop(rng.randrange(len(waiting)))
            if isinstance(step, Named):
                self.ended.append(step)
            elif step.to not in self.silent:
                waiting += self.answered(namings, step, now)

    def answered(self, namings: Namings, told: Told, now: float) -> list[Told | Named]:
        catalogue = self.catalogues[told.to]
        match told.message:
            case ClaimName(number=number, name=name, put=put, replaces=replaces):
                reason, version = catalogue.claim(name, put, now, replaces=replaces)
                answer = NameClaimed(number=number, version=version, reason=reason)
                return list(namings.on_claimed(answer, told.to, now))
            case UnclaimName(name=name, put=put):
                catalogue.unclaim(name, put)
                return []
            case KeepName(number=number, entry=kept):
                catalogue.learn(kept)
                catalogue.unclaim(kept.name, kept.file)
                return list(namings.on_kept(NameKept(number=number), told.to, now))


def test_a_name_is_given_with_a_version_above_all_that_are_known() -> None:
    ring, namings = Ring(), Namings(random.Random(1), count(1).__next__)
    ring.catalogues[PEERS[3]].learn(entry(version=7, file="0" * 40, is_removal=True))
    ring.perform(namings, namings.begin(entry(version=0), False, CLIENT, PEERS, 0.0), 0.0, random.Random(1))
    assert [(one.reason, one.entry.version) for one in ring.ended] == [("", 8)]
    assert all(one.get("x") is not None for one in ring.catalogues.values())


def test_a_minority_that_is_silent_costs_a_while_and_a_majority_the_name() -> None:
    for silent, reason in ((2, ""), (3, "quorum")):
        ring, namings, rng = Ring(), Namings(random.Random(1), count(1).__next__), random.Random(1)
        ring.silent = set(PEERS[:silent])
        ring.perform(namings, namings.begin(entry(version=0), False, CLIENT, PEERS, 0.0), 0.0, rng)
        for number in range(1, 4):
            now = number * ROUND_LIMIT_S
            ring.perform(namings, namings.tick(PEERS, now), now, rng)
        assert [one.reason for one in ring.ended] == [reason]
        if reason:
            assert PEERS[0] in ring.ended[0].text
            assert all(one.get("x") is None for one in ring.catalogues.values())
            claims = [one.claim("x", "other", 7.0, replaces=False) for one in ring.catalogues.values()]
            assert {granted for granted, _ in claims} == {""}  # what was granted was given back


@pytest.mark.parametrize("seed", range(60))
def test_of_several_puts_at_once_at_most_one_is_told_that_it_has_the_name(seed: int) -> None:
    """Messages of three coordinators are interleaved in every which way, and some are lost."""
    rng = random.Random(seed)
    ring = Ring()
    coordinators = [Namings(random.Random(f"{seed}{number}"), count(1).__next__) for number in range(3)]
    waiting: list[tuple[Namings, Told]] = []

    def take(namings: Namings, steps: list[Told | Named]) -> None:
        for step in steps:
            if isinstance(step, Named):
                ring.ended.append(step)
            else:
                waiting.append((namings, step))

    for number, namings in enumerate(coordinators):
        made = entry(version=0, file=str(number) * 40)
        take(namings, list(namings.begin(made, False, CLIENT, PEERS, 0.0)))
    now = 0.0
    for _ in range(2_000):
        if not waiting or rng.random() < 0.1:
            now += 0.1
            for namings in coordinators:
                take(namings, list(namings.tick(PEERS, now)))
        if waiting:
            namings, told = waiting.pop(rng.randrange(len(waiting)))
            if rng.random() > 0.05:
                take(namings, ring.answered(namings, told, now))
    assert len(ring.ended) == 3
    assert [one.reason for one in ring.ended].count("") <= 1
    standing = {one.get("x") for one in ring.catalogues.values()} - {None}
    for winner in [one.entry for one in ring.ended if not one.reason]:
        assert winner in standing
        assert not any(supersedes(other, winner) for other in standing if other is not None)


def test_a_busy_name_is_tried_again_but_not_for_ever() -> None:
    ring, namings, rng = Ring(), Namings(random.Random(1), count(1).__next__), random.Random(1)
    steps = namings.begin(entry(version=0), False, CLIENT, PEERS, 0.0)
    for number in range(40 * TRIES):
        now = number / 10
        for catalogue in ring.catalogues.values():
            catalogue.claim("x", "rival", now, replaces=False)
        ring.perform(namings, list(steps), now, rng)
        steps = namings.tick(PEERS, now)
    assert [one.reason for one in ring.ended] == ["busy"]


def test_a_put_that_is_said_again_meanwhile_is_one_naming() -> None:
    namings = Namings(random.Random(1), count(1).__next__)
    assert len(namings.begin(entry(version=0), False, CLIENT, PEERS, 0.0)) == len(PEERS)
    assert namings.begin(replace(entry(version=0)), False, (Connection(), 2), PEERS, 0.1) == []


def test_a_grant_that_comes_late_does_not_count_beside_those_that_were_given_back() -> None:
    namings = Namings(random.Random(1), count(1).__next__)
    namings.begin(entry(version=0), False, CLIENT, PEERS, 0.0)
    first, second, third, *late = PEERS
    for node, reason in ((first, ""), (second, ""), (third, "busy")):
        assert namings.on_claimed(NameClaimed(number=1, version=0, reason=reason), node, 0.1) == []
    given_back = namings.tick(PEERS, ROUND_LIMIT_S)
    assert {told.to for told in given_back if isinstance(told, Told)} == {first, second}
    # By now the rival has a majority: the third's grant, and those two.
    for node in late:
        assert namings.on_claimed(NameClaimed(number=1, version=0, reason=""), node, ROUND_LIMIT_S) == []


def claiming(*, is_removal: bool = False) -> tuple[Namings, list[ClaimName]]:
    """A naming that has just begun, and what it claims."""
    namings = Namings(random.Random(1), count(1).__next__)
    made = entry(version=0, is_removal=is_removal)
    told = [step.message for step in namings.begin(made, False, CLIENT, PEERS, 0.0) if isinstance(step, Told)]
    return namings, [message for message in told if isinstance(message, ClaimName)]


def granted(version: int = 0, reason: str = "") -> NameClaimed:
    return NameClaimed(number=1, version=version, reason=reason)


def writing() -> Namings:
    """A naming that all have granted, and whose entry they were told to keep."""
    namings, _ = claiming()
    steps = [step for node in PEERS for step in namings.on_claimed(granted(), node, 0.1)]
    assert {step.to for step in steps if isinstance(step, Told) and isinstance(step.message, KeepName)} == {
        *PEERS
    }
    return namings


def test_a_name_is_given_when_a_majority_has_kept_its_entry_and_not_before() -> None:
    namings = writing()
    first, second, third, *_ = PEERS
    for node in (first, second, first, second):  # said twice, it counts once
        assert namings.on_kept(NameKept(number=1), node, 0.2) == []
    (named,) = namings.on_kept(NameKept(number=1), third, 0.2)
    assert isinstance(named, Named)
    assert named.reason == ""


def test_an_entry_that_most_cannot_write_down_is_no_name() -> None:
    namings = writing()
    *unable, last, _ = PEERS
    for node in unable:
        assert namings.on_kept(NameKept(number=1, reason="No space left on device"), node, 0.2) == []
    assert namings.on_kept(NameKept(number=1), last, 0.2) == []
    (named,) = namings.peer_is_gone(PEERS[-1], 0.3)
    assert isinstance(named, Named)
    assert (named.reason, "No space left" in named.text) == ("disk", True)


def test_grants_of_others_than_those_asked_and_late_ones_are_not_counted_as_kept() -> None:
    namings = writing()
    for node in (*PEERS, NodeId("z")):
        assert namings.on_claimed(granted(), node, 0.2) == []
    assert namings.on_kept(NameKept(number=1), NodeId("z"), 0.2) == []


def test_a_version_is_chosen_when_everybody_who_is_here_has_said_what_it_knows() -> None:
    namings, _ = claiming()
    *most, last = PEERS
    for node in most:
        assert namings.on_claimed(granted(), node, 0.1) == []  # a majority, but the last may know more
    steps = namings.on_claimed(granted(version=8), last, 0.2)
    assert {step.message.entry.version for step in steps if isinstance(step, Told)} == {9}  # type: ignore[union-attr]

    namings, _ = claiming()
    for node in most:
        namings.on_claimed(granted(), node, 0.1)
    steps = namings.peer_is_gone(last, 0.2)
    assert {type(step.message) for step in steps if isinstance(step, Told)} == {KeepName}


def test_a_name_that_somebody_knows_of_is_refused_without_waiting_for_others() -> None:
    namings, claims = claiming()
    assert not any(claim.replaces for claim in claims)
    first, second, *_ = PEERS
    assert namings.on_claimed(granted(), first, 0.1) == []
    given_back, named = namings.on_claimed(granted(reason="exists"), second, 0.1)
    assert isinstance(given_back, Told)
    assert given_back.to == first
    assert isinstance(named, Named)
    assert named.reason == "exists"


def test_a_removal_claims_a_name_though_there_is_a_file_of_it() -> None:
    _, claims = claiming(is_removal=True)
    assert len(claims) == len(PEERS)
    assert all(claim.replaces for claim in claims)


def test_who_asks_again_meanwhile_hears_the_end_where_it_asked_last() -> None:
    namings = writing()
    again = (Connection(), 2)
    assert namings.begin(entry(version=0), False, again, PEERS, 0.1) == []
    ended = [step for node in PEERS[:3] for step in namings.on_kept(NameKept(number=1), node, 0.2)]
    assert [step.client for step in ended if isinstance(step, Named)] == [again]
