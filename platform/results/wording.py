"""Numbers in words: percentages, intervals, counts."""

from __future__ import annotations

from collections.abc import Mapping


def percent(value: float | None, digits: int = 1) -> str:
    """A share for people, in percent without the sign; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def spread(figure: Mapping[str, float] | None) -> str:
    """A mean with its interval in percent: ``91.2 [90.1, 92.0]``; without one where there is a
    single value.
    """
    if figure is None:
        return "–"
    if figure["low"] == figure["high"]:
        return percent(figure["mean"])
    return f"{percent(figure['mean'])} [{percent(figure['low'])}, {percent(figure['high'])}]"


def margin(figure: Mapping[str, float] | None) -> str:
    """A mean with half its interval's width in percent: ``91.2 ±0.9``; without one where there is a
    single value.
    """
    if figure is None or figure["low"] == figure["high"]:
        return spread(figure)
    return f"{percent(figure['mean'])} ±{percent((figure['high'] - figure['low']) / 2)}"


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
