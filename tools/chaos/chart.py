"""Drawings for the report, as inline SVG: what happened to each peer, and how long recoveries took.  Pure.

Peers are rows over time.  A row is light while the peer lives, striped while it is stopped, empty while it is
down; the attempts that it ran lie on it in the colour of their job.  Above them run the jobs themselves.
Kills are crosses, elections are crowns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from tools.chaos.journal import Incident, Journal
from tools.chaos.recovery import JobBar, elections_of, percentile
from tools.chaos.watching import Span

__all__ = ["Course", "chart", "key", "spread"]

LEFT_PX, ROW_PX, LANE_PX, AXIS_PX = 74, 30, 12, 26
PX_A_SECOND, LEAST_PX, MOST_PX = 14.0, 1_100, 24_000
SPREAD_BINS, SPREAD_TICKS = 80, 10
MOST_STRIPS = 3  # of a peer's row: jobs at the same time lie below each other
STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 3_600)
MOST_STEPS = 60
MARKS = {
    "kill": ("cross", "SIGKILL"),
    "ended": ("cross", "ended by itself"),
    "stop": ("pause", "SIGSTOP"),
    "continue": ("play", "SIGCONT"),
    "restart": ("up", "started again with its data"),
    "wiped": ("wiped", "started again without its data"),
    "join": ("up", "joins"),
    "leave": ("down", "SIGTERM: leaves"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What one cluster went through: the material of one chart."""

    title: str
    peers: int
    journal: Journal
    spans: Sequence[Span]
    jobs: Sequence[JobBar]


@dataclass(slots=True)
class _Canvas:
    """Where things are drawn; x grows with time."""

    duration_s: float
    parts: list[str] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Of the part that is time."""
        return min(MOST_PX, max(LEAST_PX, self.duration_s * PX_A_SECOND))

    def x(self, at_s: float) -> float:
        """Where a moment lies."""
        return LEFT_PX + self.width * min(1.0, max(0.0, at_s / self.duration_s))

    def bar(
        self, began_s: float, ended_s: float, y: float, height: float, fill: str, title: str = ""
    ) -> None:
        """Draw a rectangle between two moments, at least as wide as can be seen."""
        x = self.x(began_s)
        width = max(2.0, self.x(ended_s) - x)
        inner = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' rx='2' "
            f"fill='{fill}'>{inner}</rect>"
        )

    def text(self, x: float, y: float, content: str, extra: str = "") -> None:
        """Write text."""
        self.parts.append(f"<text x='{x:.1f}' y='{y:.1f}' {extra}>{escape(content)}</text>")

    def mark(self, shape: str, at_s: float, y: float, title: str) -> None:
        """Draw a symbol centred on a moment."""
        self.parts.append(
            f"<g transform='translate({self.x(at_s):.1f} {y:.1f})'><title>{escape(title)}</title>"
            f"{_symbol(shape)}</g>"
        )


def chart(course: Course) -> str:
    """Return the drawing of one course."""
    last_s = max(
        [incident.ended_s or incident.began_s for incident in course.journal.incidents]
        + [job.ended_s for job in course.jobs]
        + [span.ended_s for span in course.spans]
        + [1.0]
    )
    canvas = _Canvas(last_s)
    colours = {job.id: _colour(job.number) for job in course.jobs if job.id}
    lanes = _lanes(course.jobs)
    top = AXIS_PX + LANE_PX * (max(lanes, default=-1) + 1) + 10
    height = top + ROW_PX * course.peers + 10
    _draw_axis(canvas, height)
    for job, lane in zip(course.jobs, lanes, strict=True):
        _draw_job(canvas, job, AXIS_PX + lane * LANE_PX)
    for peer in range(course.peers):
        y = top + ROW_PX * peer
        _draw_peer(canvas, [one for one in course.journal.incidents if one.peer == peer], y, last_s)
        canvas.text(12, y + 19, f"peer {peer}", "class='name'")
    lane_of = {job.id: lane for job, lane in zip(course.jobs, lanes, strict=True)}
    strips = min(MOST_STRIPS, max(lanes, default=0) + 1)
    strip_px = (ROW_PX - 16) / strips
    for span in course.spans:
        at = top + ROW_PX * span.peer + 7 + lane_of.get(span.job, 0) % strips * strip_px
        title = f"{span.name} of job {span.job[:12]}, {span.began_s:.1f}–{span.ended_s:.1f} s"
        canvas.bar(span.began_s, span.ended_s, at, strip_px, colours.get(span.job, "var(--soft)"), title)
    for incident in course.journal.incidents:
        if incident.kind in MARKS and incident.peer >= 0:
            shape, what = MARKS[incident.kind]
            title = f"{what} at {incident.began_s:.1f} s {incident.text}".strip()
            canvas.mark(shape, incident.began_s, top + ROW_PX * incident.peer + ROW_PX / 2 - 1, title)
    for job in course.jobs:
        for election in elections_of(job, course.journal):
            if election.peer >= 0:
                title = f"leads job {job.number} ({job.name}) from {election.at_s:.1f} s"
                canvas.mark("crown", election.at_s, top + ROW_PX * election.peer + 5, title)
    width = LEFT_PX + canvas.width + 16
    return (
        f"<div class=scroll><svg width='{width:.0f}' height='{height:.0f}' role=img>{_HATCHING}"
        f"{''.join(canvas.parts)}</svg></div>"
    )


_HATCHING = (
    "<defs><pattern id=hatch width=6 height=6 patternUnits=userSpaceOnUse patternTransform='rotate(45)'>"
    "<rect width=3 height=6 fill='var(--stop)'/></pattern></defs>"
)


def _draw_axis(canvas: _Canvas, height: float) -> None:
    step_s = next(
        s
        for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 3_600)
        if canvas.duration_s / s <= 40 or s == 3_600
    )
    for at_s in range(0, int(canvas.duration_s) + 1, step_s):
        x = canvas.x(at_s)
        canvas.parts.append(
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{AXIS_PX - 6}' y2='{height}' stroke='var(--line)'/>"
        )
        label = f"{at_s} s" if at_s < 120 else f"{at_s // 60}:{at_s % 60:02d}"
        canvas.text(x + 3, AXIS_PX - 10, label)


def _draw_job(canvas: _Canvas, job: JobBar, y: float) -> None:
    title = f"job {job.number}: {job.name}, {job.ended_s - job.began_s:.1f} s, {job.problem or 'right'}"
    fill = "var(--bad)" if job.problem else _colour(job.number)
    canvas.bar(job.began_s, job.ended_s, y, LANE_PX - 3, fill, title)


def _draw_peer(canvas: _Canvas, incidents: Sequence[Incident], y: float, last_s: float) -> None:
    """Its lives, and within them the times in which it was stopped."""
    stopped_s: float | None = None
    for incident in incidents:
        if incident.kind == "life":
            ended_s = incident.ended_s if incident.ended_s is not None else last_s
            canvas.bar(incident.began_s, ended_s, y + 3, ROW_PX - 8, "var(--up)", f"node {incident.text}")
    for incident in incidents:
        if incident.kind == "stop":
            stopped_s = incident.began_s
        elif incident.kind in ("continue", "kill", "ended") and stopped_s is not None:
            canvas.bar(stopped_s, incident.began_s, y + 3, ROW_PX - 8, "url(#hatch)", "stopped")
            stopped_s = None


def _lanes(jobs: Sequence[JobBar]) -> list[int]:
    """Give each job the first lane that is free when it begins."""
    free_from: list[float] = []
    lanes: list[int] = []
    for job in jobs:
        lane = next((lane for lane, from_s in enumerate(free_from) if from_s <= job.began_s), len(free_from))
        if lane == len(free_from):
            free_from.append(0.0)
        free_from[lane] = job.ended_s
        lanes.append(lane)
    return lanes


def _colour(number: int) -> str:
    """A colour of its own for each number: hues a golden angle apart."""
    return f"hsl({number * 137.508 % 360:.0f} 58% 54%)"


def _symbol(shape: str) -> str:
    match shape:
        case "cross":
            return (
                "<path d='M-5-5L5 5M5-5L-5 5' stroke='var(--bad)' stroke-width='2.6' stroke-linecap='round'/>"
            )
        case "pause":
            return "<path d='M-3-5V5M3-5V5' stroke='var(--ink)' stroke-width='2.4'/>"
        case "play":
            return "<path d='M-3-5L5 0L-3 5Z' fill='var(--ink)'/>"
        case "up":
            return "<path d='M0-5L5 4H-5Z' fill='var(--good)'/>"
        case "wiped":
            return "<path d='M0-5L5 4H-5Z' fill='none' stroke='var(--good)' stroke-width='1.8'/>"
        case "down":
            return "<path d='M0 5L5-4H-5Z' fill='var(--soft)'/>"
        case _:
            return (
                "<path d='M-6 4V-4L-3 0L0-6L3 0L6-4V4Z' fill='#f0b429' stroke='#8a5f00' stroke-width='.8'/>"
            )


def key() -> str:
    """Return what the symbols mean."""
    shown = (
        ("cross", "SIGKILL"),
        ("crown", "begins to lead a job"),
        ("pause", "SIGSTOP"),
        ("play", "SIGCONT"),
        ("up", "started"),
        ("wiped", "started without its data"),
        ("down", "leaves"),
    )
    items = "".join(
        "<span><svg width=16 height=16><g transform='translate(8 8)'>"
        f"{_symbol(shape)}</g></svg> {text}</span>"
        for shape, text in shown
    )
    return f"<div class=key>{items}</div>"


def spread(ascending: Sequence[float]) -> str:
    """Return a drawing with a dot for each value, piled up where they are close, the median and the p99."""
    low, high = min(0.0, ascending[0]), max(ascending[-1], 1.0)
    bins = [int((value - low) / (high - low) * (SPREAD_BINS - 1)) for value in ascending]
    tallest = max(bins.count(place) for place in set(bins))
    step = min(11.0, 180 / tallest)
    base = 30 + step * tallest + 10

    def x(value: float) -> float:
        return 30 + (value - low) / (high - low) * (LEAST_PX - 90)

    parts: list[str] = []
    for number, (value, place) in enumerate(zip(ascending, bins, strict=True)):
        level = number - bins.index(place)  # they ascend, so those of one pile follow one another
        at = 30 + place / (SPREAD_BINS - 1) * (LEAST_PX - 90)
        parts.append(
            f"<circle cx='{at:.1f}' cy='{base - step * (level + 0.6):.1f}' r='{min(4.5, step / 2):.1f}' "
            f"fill='hsl(212 70% 55%)'><title>{value:.2f} s</title></circle>"
        )
    for percent, colour in ((50, "var(--good)"), (99, "var(--bad)")):
        at, shown = x(percentile(ascending, percent)), percentile(ascending, percent)
        parts.append(f"<line x1='{at:.1f}' x2='{at:.1f}' y1='22' y2='{base:.0f}' stroke='{colour}'/>")
        parts.append(f"<text x='{at + 4:.1f}' y='18'>p{percent} {shown:.1f} s</text>")
    for tick in range(SPREAD_TICKS + 1):
        value = low + (high - low) * tick / SPREAD_TICKS
        parts.append(f"<text x='{x(value):.1f}' y='{base + 18:.0f}'>{value:.1f} s</text>")
    parts.append(f"<line x1=30 x2={LEAST_PX - 60} y1='{base:.0f}' y2='{base:.0f}' stroke='var(--soft)'/>")
    return f"<svg width='{LEAST_PX}' height='{base + 28:.0f}' role=img>{''.join(parts)}</svg>"
