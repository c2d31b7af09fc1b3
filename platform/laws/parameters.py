"""The ends of what is legal, on which a plug-in is tried."""

from __future__ import annotations

from typing import Any

from backstop.platform import plugins
from backstop.platform.params import Parameter


def ends(parameter: Parameter) -> list[Any]:
    """Every end of what is legal: of a range (an open end nearly), both truth values, each choice,
    none.
    """
    values: list[Any] = [
        *parameter.choices,
        *([None] if type(None) in parameter.types else []),
        *([False, True] if bool in parameter.types else []),
    ]
    if parameter.range is not None:
        low, high = parameter.range.low, parameter.range.high
        step = (high - low) * 1e-9
        if int in parameter.types:
            values += [int(low) + parameter.range.low_open, int(high) - parameter.range.high_open]
        if float in parameter.types:
            values += [
                float(low + step * parameter.range.low_open),
                float(high - step * parameter.range.high_open),
            ]
    return values


def tries(group: str, name: str) -> list[dict[str, Any]]:
    """The parameters with which a plug-in is tried: the defaults, then each at each of its ends."""
    parameters = plugins.find(group, name).parameters
    cases: list[dict[str, Any]] = [{}]
    for key, parameter in parameters.items():
        cases += [{key: value} for value in ends(parameter)]
    return cases
