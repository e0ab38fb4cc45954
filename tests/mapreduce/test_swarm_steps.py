"""Jobs of several steps: parts become the next step's input where they lie, and stay while one reads them.

A part that is lost is made again from the beginning; if it comes out another one the job fails, whoever
leads. A total order takes a sample first, and cuts at its quantiles.
"""

from __future__ import annotations

from dataclasses import replace

from mapreduce import effects as e
from mapreduce.columns import pack_column, unpack_column
from mapreduce.record import JobStatus, StageKind
from mapreduce.spec import PackedColumn
from membership.view import NodeId, Status
from tests.mapreduce.fake_swarm import FakeSwarm, node, output_of, plan, plan_with, splits, step

MAP, REDUCE = StageKind.MAP, StageKind.REDUCE


# -- one step reads another -----------------------------------------------------------------------------


def test_later_steps_read_the_parts_of_earlier_ones() -> None:
    swarm = FakeSwarm(4)
    swarm.submit(
        plan_with(
            plan(),
            step("one", 6, partitions=3),
            step("two", after=(0,), map_only=True),
            step("three", after=(0, 1), partitions=2),
        )
    )
    record = swarm.commit()
    kinds = [(stage.kind, stage.tasks) for stage in record.stages]
    assert kinds == [(MAP, 6), (REDUCE, 3), (MAP, 3), (MAP, 6), (REDUCE, 2)]
    last = [order for peer in swarm.peers.values() for order in peer.done if order.setup.stage == 3]
    read = sorted((o.task, o.piece.name) for o in last if o.piece is not None)
    assert [name for _, name in read] == [f"{s}/part-{p:05d}" for s in ("one", "two") for p in range(3)]


def test_maps_of_parts_run_where_the_parts_lie() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=4), step("two", after=(0,), partitions=1)))
    swarm.commit()
    assert [effect for _, effect in swarm.effects if isinstance(effect, e.Fetch)] == []


def test_a_new_leader_too_gives_maps_of_parts_to_where_the_parts_lie() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=4), step("two", after=(0,), partitions=1)))
    swarm.run_until(lambda: swarm.record().stage == 2)
    swarm.lead("0" * 32, 3)
    swarm.commit()
    assert [effect for _, effect in swarm.effects if isinstance(effect, e.Fetch)] == []


def test_a_peer_without_the_part_fetches_it_first() -> None:
    swarm = FakeSwarm(3, slots=1)
    swarm.submit(
        plan_with(plan(replicas=1), step("one", 3, partitions=6), step("two", after=(0,), partitions=1))
    )
    swarm.duration = lambda order, peer: 9.0 if order.setup.stage == 2 and peer != node(2) else 0.05
    swarm.commit(limit_s=200)
    fetches = [(name, effect) for name, effect in swarm.effects if isinstance(effect, e.Fetch)]
    assert fetches
    assert all(name not in fetch.piece.holders for name, fetch in fetches)


def test_intermediate_outputs_are_dropped_when_their_step_is_complete() -> None:
    swarm = FakeSwarm(3)
    swarm.submit(plan_with(plan(), step("one", 4, partitions=2), step("two", after=(0,), partitions=1)))
    swarm.run_until(lambda: swarm.record().stage == 2)
    swarm.run_for(0.01)
    assert swarm.record().stages[0].is_dropped
    assert not swarm.record().stages[1].is_dropped
    assert {key[1] for peer in swarm.peers.values() for key in peer.stored} == {1}
    swarm.commit()


def test_a_step_that_reads_nothing_reduces_nothing() -> None:
    swarm = FakeSwarm(3)
    swarm.outcome = lambda order, _: e.TaskOutput(is_empty=order.setup.kind is MAP)
    swarm.submit(plan_with(plan(), step("one", 4, partitions=2), step("two", after=(0,), partitions=1)))
    record = swarm.commit()
    assert [stage.tasks for stage in record.stages] == [4, 2, 0, 1]


# -- parts that are lost --------------------------------------------------------------------------------


def test_a_lost_part_is_made_again_from_the_beginning() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=2), step("two", after=(0,), partitions=1)))
    swarm.duration = lambda order, _: 2.0 if order.setup.stage == 2 else 0.05
    swarm.run_until(lambda: swarm.record().stage == 2)
    holders = [int(n[1:]) for n in swarm.holders(1, 0)]
    swarm.lead("0" * 32, next(n for n in range(6) if n not in holders))
    for holder in holders:
        swarm.kill(holder, disk=False)
    record = swarm.commit(limit_s=120)
    assert record.totals.parts_run_again >= 1
    assert record.totals.maps_run_again >= 6
    assert record.counters == {"maps": 8, "parts": 3}


def test_a_step_that_gives_other_output_when_run_again_fails_the_job_under_the_next_leader_too() -> None:
    swarm = FakeSwarm(6)
    swarm.submit(plan_with(plan(), step("one", 6, partitions=2), step("two", after=(0,), partitions=1)))
    swarm.duration = lambda order, _: 2.0 if order.setup.stage == 2 else 0.05

    def outcome(order: e.RunTask, _: NodeId) -> e.TaskOutput:
        is_other = order.setup.stage == 1 and swarm.record().totals.parts_run_again > 0
        return replace(output_of(order), cuts=(0, 5, 10)) if is_other else output_of(order)

    swarm.outcome = outcome
    swarm.run_until(lambda: swarm.record().stage == 2)
    holders = [int(n[1:]) for n in swarm.holders(1, 0)]
    first, second, *_ = (n for n in range(6) if n not in holders)
    swarm.lead("0" * 32, first)
    for holder in holders:
        swarm.kill(holder, disk=False)
    swarm.run_until(lambda: swarm.record().stage < 2)
    swarm.run_until(lambda: swarm.record().stage == 2)
    swarm.lead("0" * 32, second)  # before the first one's last word is chosen
    swarm.run_until(lambda: swarm.record().leader == node(second))
    swarm.quorum = False  # long enough for workers to report, and for somebody to come
    swarm.join(6)
    swarm.change(first, status=Status.DEAD)
    swarm.run_for(0.5)
    swarm.quorum = True
    record = swarm.finish()
    assert record.status is JobStatus.FAILED
    assert record.failure is not None
    assert "not deterministic" in record.failure.message


# -- total order ----------------------------------------------------------------------------------------


def test_a_total_order_samples_first_and_cuts_at_its_quantiles() -> None:
    swarm = FakeSwarm(3)
    samples = {0: [1, 2, 3], 1: [7, 8, 9]}

    def outcome(order: e.RunTask, _: NodeId) -> e.TaskOutput:
        if order.setup.kind is not StageKind.SAMPLE:
            return output_of(order)
        form, data = pack_column(samples[order.task])
        return e.TaskOutput(sample=PackedColumn(form=form, data=data), took_s=0.01)

    swarm.outcome = outcome
    sampled = step("main", 4, partitions=2, sample_keys=6, samples=splits("sample", 2))
    swarm.submit(plan_with(plan(), sampled))
    record = swarm.commit()
    assert [stage.kind for stage in record.stages] == [StageKind.SAMPLE, MAP, REDUCE]
    borders = record.stages[1].borders
    assert borders is not None
    assert unpack_column(borders.form, borders.data) == [7]
    orders = [order for peer in swarm.peers.values() for order in peer.done]
    assert {o.sample_keys for o in orders if o.setup.kind is StageKind.SAMPLE} == {3}
    assert {o.setup.borders for o in orders if o.setup.kind is MAP} == {borders}


def test_one_partition_needs_no_sample() -> None:
    swarm = FakeSwarm(3)
    sampled = step("main", 4, partitions=1, sample_keys=6, samples=splits("sample", 2))
    swarm.submit(plan_with(plan(), sampled))
    record = swarm.commit()
    assert [stage.tasks for stage in record.stages] == [0, 4, 1]
    assert record.stages[1].borders is None
