"""What the functions of a job give, and what is made of it.

They may return a list, a generator, nothing, or for a batch a dict; what is none of these is refused with a
message that shows it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mapreduce.columns import short_repr
from mapreduce.context import MAX_COUNTER_CHARS, MAX_COUNTERS, can_name_a_counter
from mapreduce.errors import BadKey, BadValue, JobDefinitionError
from mapreduce.job import Step
from mapreduce.records import Pair, normal_key, order_key


def iterable_results(function: Callable[..., Any]) -> Callable[..., Iterable[Pair]]:
    """Return a function whose result can be iterated: a plain function may also return None for nothing."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & 0x20:  # CO_GENERATOR: calling it gives an iterator
        return function

    def call(*arguments: Any) -> Iterable[Pair]:
        try:
            result = function(*arguments)
        except StopIteration as error:
            # The iterators that call us would take it for their end, and what follows would be lost.
            raise RuntimeError(f"{getattr(function, '__name__', function)} raised StopIteration") from error
        if result is None:
            return ()
        if not hasattr(result, "__iter__"):
            name = getattr(function, "__name__", repr(function))
            raise JobDefinitionError(
                f"{name} returned {short_repr(result)} (a {type(result).__name__}); "
                "it must yield pairs, (key, value), or return a list of them"
            )
        pairs: Iterable[Pair] = result
        return pairs

    return call


def items_of(pairs: Any) -> Iterable[Pair]:
    """Let a batch mapper return a dict where it means its items."""
    return pairs.items() if isinstance(pairs, dict) else pairs


def value_order_of(step: Step) -> Callable[[Any], Any] | None:
    """Return the function that makes a sort key of a value, None where a step does not sort values."""
    if step.sort_values is False:
        return None
    return value_order_key if step.sort_values is True else step.sort_values


def value_order_key(value: Any) -> Any:
    """Order values as keys are ordered; lists count as tuples."""
    try:
        return order_key(normal_key(tuple(value) if type(value) is list else value))
    except BadKey:
        raise BadValue(
            f"value {short_repr(value)} cannot be sorted: sort_values=True sorts what could be keys; "
            "give it a function that makes a sort key of a value"
        ) from None


def checked_counters(counters: Mapping[Any, Any]) -> dict[str, int]:
    """Return counters as a report carries them.

    Raises:
        JobDefinitionError: a count is no whole number (numpy's are), is too large, or its name is no text
            or too long; or there are too many.
    """
    if len(counters) > MAX_COUNTERS:
        raise JobDefinitionError(
            f"a task counts under {len(counters):,} names, at most {MAX_COUNTERS:,} are possible: what has "
            "more of them is output"
        )
    counted = {}
    for name, count in list(counters.items()):
        try:
            counted[name] = operator.index(count)
        except TypeError:
            raise JobDefinitionError(
                f"counter {short_repr(name)} is {short_repr(count)}: counters are whole numbers"
            ) from None
        if not isinstance(name, str) or not -(1 << 63) <= counted[name] < 1 << 63:
            raise JobDefinitionError(
                f"counter {short_repr(name)} is {short_repr(count)}: counters have text for a name and "
                "whole numbers of 64 bits"
            )
        if not can_name_a_counter(name):
            raise JobDefinitionError(
                f"counter {short_repr(name)}: the name of a counter is text of at most {MAX_COUNTER_CHARS} "
                "characters"
            )
    return counted


def is_pair(pair: Any) -> bool:
    """Whether something can be taken for (key, value)."""
    return isinstance(pair, (tuple, list)) and len(pair) == 2
