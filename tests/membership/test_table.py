"""The table of members: a shared base, differences, digests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from membership.sync import better_than, chunks, differing, sync_period_s
from membership.table import BUCKETS, Members, MemberTable, bucket_of
from membership.view import Member, NodeId, Status


def member(number: int, **changes: object) -> Member:
    return replace(Member(id=NodeId(f"n{number}"), address=f"h:{number}"), **changes)  # type: ignore[arg-type]


changes = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.one_of(st.none(), st.tuples(st.integers(1, 3), st.sampled_from(Status), st.integers(1, 2))),
    ),
    max_size=20,
)


def changed(base: MemberTable, steps: list[tuple[int, object]]) -> tuple[Members, dict[NodeId, Member]]:
    table, model = Members(base), dict(base.by_id)
    for number, change in steps:
        if change is None:
            table.remove(NodeId(f"n{number}"))
            model.pop(NodeId(f"n{number}"), None)
        else:
            incarnation, status, weight = change  # type: ignore[misc]
            new = member(number, incarnation=incarnation, status=status, weight=weight)
            table.put(new)
            model[new.id] = new
    return table, model


@given(st.integers(0, 7), changes)
def test_a_table_over_a_base_holds_what_a_plain_dictionary_would(
    count: int, steps: list[tuple[int, object]]
) -> None:
    table, model = changed(MemberTable(map(member, range(count))), steps)
    assert len(table) == len(model)
    assert {node: table.get(node) for node in model} == model
    assert list(table.view()) == sorted(model.values(), key=lambda m: m.id)
    assert [table.get(NodeId(f"n{n}")) is None for n in range(10)] == [
        f"n{n}" not in model for n in range(10)
    ]


@given(st.integers(0, 7), changes)
def test_equal_rings_have_equal_digests_however_they_came_about(
    count: int, steps: list[tuple[int, object]]
) -> None:
    table, model = changed(MemberTable(map(member, range(count))), steps)
    in_ring = [m for m in model.values() if m.status.in_ring]
    assert table.digests() == MemberTable(in_ring).digests


@given(st.integers(0, 7), changes, st.integers(0, 9))
def test_a_changed_member_changes_the_digest_of_its_bucket_alone(
    count: int, steps: list[tuple[int, object]], number: int
) -> None:
    table, _ = changed(MemberTable(map(member, range(count))), steps)
    before = table.digests()
    table.put(member(number, incarnation=99))
    assert differing(before, table.digests()) == 1 << bucket_of(NodeId(f"n{number}"))


@given(st.integers(0, 7), changes, st.integers(0, 2**BUCKETS - 1))
def test_buckets_hold_every_member_once_the_dead_included(
    count: int, steps: list[tuple[int, object]], wanted: int
) -> None:
    table, model = changed(MemberTable(map(member, range(count))), steps)
    found = [m for bucket, members in table.in_buckets(wanted) for m in members]
    expected = [m for m in model.values() if wanted >> bucket_of(m.id) & 1]
    assert sorted(m.id for m in found) == sorted(m.id for m in expected)


def test_the_base_is_shared_and_never_changed() -> None:
    base = MemberTable(map(member, range(5)))
    one, other = Members(base), Members(base)
    one.put(member(3, incarnation=7))
    one.remove(NodeId("n1"))
    assert other.get(NodeId("n3")) == member(3)
    assert other.get(NodeId("n1")) == member(1)
    assert other.view() is base.view
    assert list(base) == [member(n) for n in range(5)]


def test_a_view_is_built_once_for_each_version() -> None:
    table = Members(MemberTable(map(member, range(5))))
    table.put(member(1, incarnation=2))
    view = table.view()
    assert table.view() is view
    table.put(member(1, incarnation=3))
    assert table.view().version > view.version


def test_buckets_do_not_depend_on_the_process() -> None:
    assert [bucket_of(NodeId(f"n{n}")) for n in range(4)] == [37, 8, 29, 20]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 9))
def test_chunks_hold_whole_buckets_and_everything_once(sizes: list[int], size_max: int) -> None:
    buckets = [(number, [member(number * 10 + n) for n in range(size)]) for number, size in enumerate(sizes)]
    parts = list(chunks(buckets, size_max))
    assert [m for _, members in parts for m in members] == [m for _, members in buckets for m in members]
    assert sum(bits for bits, _ in parts) == (1 << len(sizes)) - 1
    assert all(len(members) <= max(size_max, *sizes) for _, members in parts)


def test_only_what_the_other_side_should_hear_is_sent_back() -> None:
    mine = [
        member(1, incarnation=2),
        member(2),
        member(3),
        member(4, status=Status.DEAD),
        member(5, status=Status.DEAD),
    ]
    theirs = [member(1), member(2, incarnation=2), member(4)]
    assert [m.id for m in better_than(mine, theirs)] == ["n1", "n3", "n4"]


def test_digests_of_another_length_differ_everywhere() -> None:
    assert differing((1, 2, 3), (1, 2)) == 0b111


def test_larger_groups_compare_notes_less_often() -> None:
    assert [sync_period_s(30.0, n) for n in (1, 32, 33, 64, 65, 10_000)] == [30, 30, 60, 60, 90, 300]
