"""Settings that contradict each other are refused with both names, when they are made."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from membership.config import LAN, LOCAL, WAN, SwimConfig
from membership.errors import InvalidConfig


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"probe_timeout_s": 0.6}, ("probe_period_s", "probe_timeout_s")),
        ({"nack_fraction": 1.0}, ("nack_fraction", "probe_timeout_s")),
        ({"gossip_period_s": 1.5}, ("gossip_period_s", "probe_period_s")),
        ({"suspicion_max_mult": 0.5}, ("suspicion_max_mult", "suspicion_mult")),
        ({"suspicion_mult": 0.5}, ("suspicion_mult", "gossip_period_s")),
        ({"reap_after_s": 10.0}, ("reap_after_s", "gossip_to_dead_s")),
        ({"reconnect_period_s": 1.0}, ("reconnect_period_s", "join_retry_s")),
    ],
)
def test_related_settings_that_contradict_each_other_are_refused_by_both_names(
    changes: dict[str, float], names: tuple[str, str]
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        replace(LAN, **changes)  # type: ignore[arg-type]
    assert all(name in str(refused.value) for name in names)


NUMBERS = [field.name for field in fields(SwimConfig)]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_setting_may_be_negative(name: str) -> None:
    with pytest.raises(InvalidConfig, match=name):
        replace(LAN, **{name: -1})


@pytest.mark.parametrize("name", ["probe_period_s", "gossip_fanout", "members_max", "tombstones_max"])
def test_bounds_and_periods_may_not_be_zero(name: str) -> None:
    with pytest.raises(InvalidConfig, match=name):
        replace(LAN, **{name: 0})


def test_the_profiles_are_ordered_by_patience() -> None:
    for name in (
        "probe_period_s",
        "probe_timeout_s",
        "gossip_period_s",
        "lag_tolerance_s",
        "leave_timeout_s",
    ):
        assert getattr(LOCAL, name) < getattr(LAN, name) < getattr(WAN, name)
    assert LOCAL.suspicion_min_s(16) < LAN.suspicion_min_s(16) < WAN.suspicion_min_s(16)


def test_suspicions_last_longer_in_larger_groups_but_only_logarithmically() -> None:
    assert LAN.suspicion_min_s(1) == LAN.suspicion_min_s(10) == 4.0
    assert LAN.suspicion_min_s(10_000) == 16.0
