"""A line chart as SVG, without any dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 50, 60
COLOURS = (
    *("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626"),
    *("#0891b2", "#db2777", "#65a30d", "#78716c"),
)


@dataclass(frozen=True)
class Series:
    """A named line through (x, y) points."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """Something that happened at x; shown as a dashed line with a number, named below the chart."""

    x: float
    text: str


def _step(span: float) -> float:
    """A round distance between grid lines, for about five of them."""
    step = 1.0
    while step * 5 < span:
        step *= 10
    while step * 5 > span * 2:
        step /= 2
    return step


def _label(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def line_chart(
    title: str,
    x_title: str,
    y_title: str,
    series: list[Series],
    *,
    marks: Sequence[Mark] = (),
    y_log: bool = False,
) -> str:
    """The chart as an SVG document; both axes begin at zero.

    With ``y_log`` the y axis has a line for each power of ten; values must then be positive.
    """
    points = [point for line in series for point in line.points]
    x_max = max([x for x, _ in points] + [mark.x for mark in marks], default=1.0) * 1.05 or 1.0
    y_max = max((y for _, y in points), default=1.0) * 1.1 or 1.0
    low, high = 0.0, y_max
    if y_log:
        low = math.floor(math.log10(min((y for _, y in points), default=1.0)))
        high = max(low + 1.0, math.ceil(math.log10(y_max)))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / x_max * (WIDTH - LEFT - RIGHT)
        share = (math.log10(y) - low) / (high - low) if y_log else y / y_max
        return across, HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    if y_log:
        y_ticks = [10.0**power for power in range(int(low), int(high) + 1)]
    else:
        y_ticks = _ticks(y_max)
    height = HEIGHT + (len(marks) * 16 + 8 if marks else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="16">{escape(title)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_title)}</text>',
        f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>",
    ]
    for value in y_ticks:
        x, y = place(0, value)
        parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        )
        parts.append(
            f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{_label(value)}</text>'
        )
    foot = HEIGHT - BOTTOM
    for value in _ticks(x_max):
        x, _ = place(value, y_ticks[-1])
        parts.append(
            f'<line x1="{x:.1f}" y1="{foot:.1f}" x2="{x:.1f}" y2="{TOP}" stroke="#e5e7eb"/>'
        )
        parts.append(
            f'<text x="{x:.1f}" y="{foot + 18:.1f}" text-anchor="middle">{_label(value)}</text>'
        )
    for number, mark in enumerate(marks, 1):
        x, _ = place(mark.x, y_ticks[-1])
        parts += [
            f'<line x1="{x:.1f}" y1="{foot}" x2="{x:.1f}" y2="{TOP}" stroke="#dc2626" '
            'stroke-dasharray="4 3"/>',
            f'<text x="{x + 3:.1f}" y="{foot - 4 - number % 3 * 12}" fill="#dc2626">'
            f"{number}</text>",
            f'<text x="{LEFT}" y="{HEIGHT + number * 16 - 6}" fill="#dc2626">'
            f"{number}  {mark.x:.1f}  {escape(mark.text)}</text>",
        ]
    for index, line in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        placed = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        y = TOP + 4 + index * 18
        parts.append(f'<rect x="{LEFT + 12}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 30}" y="{y + 10}">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(limit: float) -> list[float]:
    step = _step(limit)
    return [number * step for number in range(int(limit / step) + 1)]
