"""A plot of a few curves as SVG, by the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#000000")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 460, 60, 280, 20, 50


def curves_svg(curves: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> str:
    """The SVG document of named curves of points (x, y), with axes, five marks a side and a legend.

    Raises:
        ValueError: there is no point.
    """
    points = [point for curve in curves.values() for point in curve]
    (x_low, x_high), (y_low, y_high) = ((min(side), max(side)) for side in zip(*points, strict=True))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - TOP - BOTTOM)

    root = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}")
    root.set("font-family", "sans-serif")
    root.set("font-size", "12")
    ElementTree.SubElement(root, "rect", width="100%", height="100%", fill="white")
    for mark in range(6):
        x, y = (low + (high - low) * mark / 5 for low, high in ((x_low, x_high), (y_low, y_high)))
        _text(root, place(x, y_low)[0], HEIGHT - BOTTOM + 18, f"{x:.0f}", "middle")
        _text(root, LEFT - 8, place(x_low, y)[1] + 4, f"{y:.2f}", "end")
        _line(root, [place(x_low, y), place(x_high, y)], "#dddddd")
    _text(root, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_label, "middle")
    _text(root, LEFT, TOP - 6, y_label, "start")
    for at, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[at % len(COLOURS)]
        _line(root, [place(x, y) for x, y in curve], colour, "2", "6 4" if at >= len(COLOURS) else "")
        _line(root, [(WIDTH - RIGHT + 14, TOP + 18 * at + 8), (WIDTH - RIGHT + 40, TOP + 18 * at + 8)], colour, "2")
        _text(root, WIDTH - RIGHT + 46, TOP + 18 * at + 12, name, "start")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _text(root: ElementTree.Element, x: float, y: float, text: str, anchor: str) -> None:
    ElementTree.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text


def _line(root: ElementTree.Element, points: Sequence[tuple[float, float]], colour: str, width: str = "1", dashes: str = "") -> None:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = ElementTree.SubElement(root, "polyline", {"points": path, "fill": "none", "stroke": colour, "stroke-width": width})
    if dashes:
        line.set("stroke-dasharray", dashes)
