"""A line chart as SVG, without any dependency."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 50, 60
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed")


@dataclass(frozen=True)
class Series:
    """A named line through (x, y) points."""

    name: str
    points: list[tuple[float, float]]


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


def line_chart(title: str, x_title: str, y_title: str, series: list[Series]) -> str:
    """The chart as an SVG document; both axes begin at zero."""
    points = [point for line in series for point in line.points]
    x_max = max((x for x, _ in points), default=1.0) * 1.05 or 1.0
    y_max = max((y for _, y in points), default=1.0) * 1.1 or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / x_max * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y / y_max * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="16">{escape(title)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_title)}</text>',
        f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>",
    ]
    for horizontal, limit in ((True, y_max), (False, x_max)):
        step = _step(limit)
        for number in range(int(limit / step) + 1):
            value = number * step
            x, y = place(0, value) if horizontal else place(value, 0)
            end = f'x2="{WIDTH - RIGHT}" y2="{y:.1f}"' if horizontal else f'x2="{x:.1f}" y2="{TOP}"'
            parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" {end} stroke="#e5e7eb"/>')
            parts.append(
                f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{_label(value)}</text>'
                if horizontal
                else f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">'
                f"{_label(value)}</text>"
            )
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
