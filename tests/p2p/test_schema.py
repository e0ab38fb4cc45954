"""What the annotations of a message let through, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Literal, NewType

import pytest

from p2p.errors import MalformedFrame
from p2p.schema import Bounds, compile_schema

NodeName = NewType("NodeName", str)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(Enum):
    SMALL = 1


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Circle:
    centre: Point
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    whole: int
    real: float
    flag: bool
    text: str
    raw: bytes
    name: NodeName
    colour: Colour
    size: Size
    mode: Literal["fast", "slow"]
    maybe: str | None
    shape: Point | Circle
    shapes: tuple[Point, ...]
    pair: tuple[int, Circle]
    tags: frozenset[str]
    counts: Mapping[str, int]


EVERYTHING = Everything(
    whole=1,
    real=2.5,
    flag=True,
    text="t",
    raw=b"r",
    name=NodeName("n"),
    colour=Colour.RED,
    size=Size.SMALL,
    mode="fast",
    maybe=None,
    shape=Circle(Point(1, 2), 3.0),
    shapes=(Point(1, 2), Point(3, 4)),
    pair=(1, Circle(Point(0, 0), 1.0)),
    tags=frozenset({"a", "b"}),
    counts={"k": 1},
)


@dataclass(frozen=True, slots=True)
class Empty:
    pass


@dataclass(frozen=True, slots=True)
class Checked:
    n: int

    def __post_init__(self) -> None:
        if self.n == 13:
            raise ValueError("no thirteen")


def as_arrived(value: Any) -> Any:
    """What msgpack makes of a packed value: tuples, and nothing of ours."""
    if isinstance(value, list | tuple):
        return tuple(as_arrived(item) for item in value)
    if isinstance(value, dict):
        return {key: as_arrived(item) for key, item in value.items()}
    return value.value if isinstance(value, Enum) else value


@pytest.mark.parametrize("message", [EVERYTHING, Empty(), Point(1, 2), Circle(Point(1, 2), 0.5)])
def test_a_message_survives_its_packing(message: Any) -> None:
    schema = compile_schema(type(message))
    assert schema.unpack(as_arrived(schema.pack(message))) == message


@pytest.mark.parametrize(
    ("position", "value", "complaint"),
    [
        (0, True, "Everything.whole: expected int, got bool"),
        (0, 1.0, "Everything.whole: expected int, got float"),
        (0, -1, "Everything.whole: -1 is not between 0"),
        (0, None, "Everything.whole: expected int, got NoneType"),
        (1, 2, "Everything.real: expected float, got int"),
        (1, math.nan, "Everything.real: nan is no number"),
        (1, math.inf, "Everything.real: inf is no number"),
        (2, 1, "Everything.flag: expected bool, got int"),
        (3, b"t", "Everything.text: expected str, got bytes"),
        (3, "x" * 1025, "Everything.text: 1025 characters, at most 1024"),
        (4, "r", "Everything.raw: expected bytes, got str"),
        (6, "green", "Everything.colour: no Colour"),
        (6, (), "Everything.colour: no Colour"),
        (7, 1.0, "Everything.size: no Size"),
        (8, "medium", "Everything.mode: expected one of"),
        (8, ({},), "Everything.mode: expected one of"),
        (9, 7, "Everything.maybe: expected str, got int"),
        (10, (2, (1, 2)), "Everything.shape: kind 2 of 2"),
        (10, (True, (1, 2)), "Everything.shape: expected one of several kinds"),
        (10, (1, ((1, "2"), 3.0)), "Everything.shape: Circle.centre: Point.y: expected int, got str"),
        (11, {}, "Everything.shapes: expected a list, got dict"),
        (11, ((1, 2, 3),), "Everything.shapes: Point has 2 fields, got 3"),
        (11, ((1,),), "Everything.shapes: Point has 2 fields, got 1"),
        (12, (1,), "Everything.pair: expected 2 items"),
        (13, ("a", "a"), "Everything.tags: a set names an item twice"),
        (14, {b"k": 1}, "Everything.counts: expected str, got bytes"),
        (14, (), "Everything.counts: expected a mapping, got tuple"),
    ],
)
def test_a_field_that_does_not_fit_is_named(position: int, value: Any, complaint: str) -> None:
    schema = compile_schema(Everything)
    fields = list(as_arrived(schema.pack(EVERYTHING)))
    fields[position] = value
    with pytest.raises(MalformedFrame) as refusal:
        schema.unpack(tuple(fields))
    assert str(refusal.value).startswith(complaint)


@pytest.mark.parametrize("fields", [(1,), (1, 2, 3), [1, 2], {"x": 1, "y": 2}, None, 7])
def test_a_missing_or_an_unknown_field_is_refused(fields: Any) -> None:
    with pytest.raises(MalformedFrame, match="Point"):
        compile_schema(Point).unpack(fields)


def test_limits_are_stated_by_field_and_hold_inside_of_other_messages() -> None:
    schema = compile_schema(Circle, {"Point.x": Bounds(least=-5, most=5)})
    assert schema.unpack(((-5, 0), 1.0)) == Circle(Point(-5, 0), 1.0)
    with pytest.raises(MalformedFrame, match=r"Circle\.centre: Point\.x: 6 is not between -5 and 5"):
        schema.unpack(((6, 0), 1.0))


def test_a_limit_for_a_field_that_does_not_exist_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match=r"Point\.z"):
        compile_schema(Point, {"Point.z": Bounds()})


def test_a_message_that_checks_itself_is_refused_with_its_own_words() -> None:
    with pytest.raises(MalformedFrame, match="Checked: no thirteen"):
        compile_schema(Checked).unpack((13,))


@dataclass(frozen=True)
class Anything:
    value: Any


@dataclass(frozen=True)
class Numbers:
    value: int | str


@dataclass(frozen=True)
class Names:
    value: Mapping[Size, int]


@pytest.mark.parametrize("message_type", [Anything, Numbers, Names, int])
def test_an_annotation_without_a_safe_form_is_refused_at_start(message_type: type) -> None:
    with pytest.raises(TypeError):
        compile_schema(message_type)


@dataclass(frozen=True)
class Tree:
    left: Tree | None


def test_a_message_that_contains_itself_is_refused_because_its_depth_has_no_bound() -> None:
    with pytest.raises(TypeError, match="contains itself"):
        compile_schema(Tree)


def test_a_number_that_is_none_cannot_be_sent() -> None:
    with pytest.raises(MalformedFrame, match="nan"):
        compile_schema(Circle).pack(Circle(Point(1, 1), math.nan))


def test_an_int_in_a_float_field_is_sent_as_a_float() -> None:
    schema = compile_schema(Circle)
    assert schema.unpack(as_arrived(schema.pack(Circle(Point(1, 1), 2)))) == Circle(Point(1, 1), 2.0)


def test_a_text_that_does_not_match_its_pattern_is_refused() -> None:
    schema = compile_schema(Everything, {"Everything.name": Bounds(pattern="[a-z]+")})
    fields = list(as_arrived(schema.pack(EVERYTHING)))
    fields[5] = "two\nlines"
    with pytest.raises(MalformedFrame, match=r"Everything\.name: 'two\\nlines' does not match"):
        schema.unpack(tuple(fields))
