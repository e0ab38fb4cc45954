"""What keys are, written from the contract alone: an oracle that shares nothing with the code it judges.

Two keys are one when type and value agree; keys are ordered by type rank, then value.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from hypothesis import strategies as st

# Keys that Python or msgpack would take for one another, in key order.
CONFUSABLE: list[Any] = [
    None,
    False,
    True,
    -(2**70),
    0,
    1,
    2**64,
    2**70,
    -math.inf,
    -0.0,
    0.0,
    1.0,
    float(2**64),
    math.inf,
    "",
    "1",
    "None",
    "\ud800",
    "\ue000",
    b"",
    b"1",
    (),
    (None,),
    (True,),
    (0, 1),
    (1,),
    (1, 0),
    (2**70,),
    (-0.0,),
    (0.0,),
    (1.0,),
    ("",),
    ("a", None),
    ("a", "b"),
    ("\ud800",),
    (b"",),
    ((),),
    ((1,),),
    ((1.0,),),
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
)
keys = st.one_of(
    st.sampled_from(CONFUSABLE),
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=6),
)
values = st.recursive(
    st.one_of(scalars, st.just(math.nan)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.tuples(st.integers())), inner, max_size=3),
    ),
    max_leaves=8,
)


def exactly(value: Any) -> Any:
    """Return something that is equal for two values only if their types and bits are."""
    kind = type(value).__name__
    if isinstance(value, float):
        return kind, value.hex()
    if isinstance(value, (tuple, list)):
        return kind, tuple(map(exactly, value))
    if isinstance(value, dict):
        return kind, tuple((exactly(key), exactly(item)) for key, item in value.items())
    return kind, value


def compare(left: Any, right: Any) -> int:
    """Compare two keys as the contract says: type rank, then value, tuples element by element."""
    ranks = [type(None), bool, int, float, str, bytes, tuple]
    if type(left) is not type(right):
        return ranks.index(type(left)) - ranks.index(type(right))
    if isinstance(left, tuple):
        for one, other in zip(left, right, strict=False):
            if found := compare(one, other):
                return found
        return len(left) - len(right)
    if left is None:
        return 0
    if isinstance(left, float) and left == right:
        return int(math.copysign(1, left) - math.copysign(1, right))
    return int(left > right) - int(left < right)


in_order = functools.cmp_to_key(compare)
