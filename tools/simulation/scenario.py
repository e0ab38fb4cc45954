"""A seed from start to verdict.

First a phase in which faults hurt: promises of safety must hold after every step. Then everything is
healed, and within a stated virtual time the promises of liveness must come true: for membership,
agreement; for a job, its end (the two phases are TigerBeetle's). A seed fails by a ``Violation``, by an
exception out of the code under test, or by not having come to its end in time.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from tools.simulation.faults import Nemesis, SwarmConfig
from tools.simulation.kinds import Fault
from tools.simulation.trace import Trace
from tools.simulation.world import Violation, World

__all__ = ["Outcome", "Scenario", "never_fired", "run_scenario"]

POLL_S = 0.5  # how often the healed world is asked whether it has come to its end


class Scenario(Protocol):
    """What is run in a world; one object for one seed."""

    config: SwarmConfig
    world: World

    @property
    def title(self) -> str:
        """One line: what this seed drew."""

    def begin(self) -> Nemesis:
        """Start the nodes; who shall hurt them."""

    def unfinished(self) -> str | None:
        """What is not yet as it must be in the end, or None."""

    @property
    def healing_limit_s(self) -> float:
        """Within this virtual time after healing, ``unfinished`` must become None and stay so."""

    @property
    def settling_s(self) -> float:
        """How long it must stay so before it is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One seed's end. ``violation`` is None where every promise was kept; ``healed_s`` is how long
    agreement took."""

    seed: int
    title: str
    trace_digest: str
    events: int
    virtual_s: float
    healed_s: float
    enabled: tuple[Fault, ...]
    fired: Counter[Fault]
    violation: str | None


def run_scenario(make: Callable[[int, Trace], Scenario], seed: int, trace: Trace | None = None) -> Outcome:
    """Run one seed through both phases; never raises for what the code under test does."""
    trace = trace or Trace()
    scenario = make(seed, trace)
    world = scenario.world
    nemesis: Nemesis | None = None
    violation: str | None = None
    healed_s = 0.0
    try:
        nemesis = scenario.begin()
        nemesis.begin()
        world.run(world.now + scenario.config.fault_phase_s)
        trace.note(world.now, "heal")
        nemesis.heal()
        healed_s = _await_end(scenario)
    except Violation as broken:
        violation = str(broken)
    except Exception as error:  # whatever it is, the code under test let it out
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = " > ".join(
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames
        )
        violation = f"{type(error).__name__}: {error} ({places})"
    if violation:
        trace.note(world.now, "violation", violation)
    return Outcome(
        seed=seed,
        title=scenario.title,
        trace_digest=trace.digest,
        events=trace.events,
        virtual_s=world.now,
        healed_s=healed_s,
        enabled=scenario.config.enabled,
        fired=world.network.fired + (nemesis.fired if nemesis else Counter()),
        violation=violation,
    )


def _await_end(scenario: Scenario) -> float:
    """Run until the healed world has been as it must be for a while; returns how long it took, in seconds."""
    world = scenario.world
    healed_at = world.now
    good_since: float | None = None
    while True:
        problem = scenario.unfinished()
        if problem is None:
            good_since = world.now if good_since is None else good_since
            if world.now - good_since >= scenario.settling_s:
                return good_since - healed_at
        else:
            good_since = None
            if world.now - healed_at >= scenario.healing_limit_s:
                raise Violation(f"{scenario.healing_limit_s:.0f} s after healing: {problem}")
        world.run(world.now + POLL_S)


def never_fired(outcomes: Collection[Outcome]) -> list[Fault]:
    """Faults that some seed had enabled and that no seed has seen happen: a simulator that only looks
    busy."""
    fired: Counter[Fault] = Counter()
    enabled: set[Fault] = set()
    for outcome in outcomes:
        fired += outcome.fired
        enabled.update(outcome.enabled)
    return [fault for fault in Fault if fault in enabled and not fired[fault]]
