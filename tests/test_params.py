"""Annotations → schema, checked values, and errors that say what was given, what is allowed and the
nearest match.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.platform.params import BadInput, Range, check, declare, fill, nearest, schema


def example(
    *,
    norm: Annotated[float, Range(0, 10, low_open=True, log=True), "largest norm"] = 1.0,
    count: Annotated[int, Range(1, 8)] = 3,
    mode: Literal["fast", "exact"] = "fast",
    stop: Annotated[int | None, Range(0, 5)] = None,
    alpha: Annotated[float | Literal["natural"] | None, Range(0, 1)] = 0.5,
    label: str = "x",
    loud: bool = False,
) -> None:
    """A factory with every kind of parameter."""


DECLARED = schema(example)


def test_the_signature_is_the_schema() -> None:
    assert list(DECLARED) == ["norm", "count", "mode", "stop", "alpha", "label", "loud"]
    norm = DECLARED["norm"]
    assert (norm.types, norm.default, norm.text, norm.range) == (
        (float,),
        1.0,
        "largest norm",
        Range(0, 10, low_open=True, log=True),
    )
    assert DECLARED["mode"].choices == ("fast", "exact")
    assert DECLARED["mode"].types == ()
    assert set(DECLARED["stop"].types) == {int, type(None)}
    assert DECLARED["alpha"].choices == ("natural",)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("norm", "a number in (0, 10]"),
        ("count", "an integer in [1, 8]"),
        ("mode", "fast or exact"),
        ("stop", "an integer in [0, 5] or none"),
        ("alpha", "a number in [0, 1] or none or natural"),
        ("label", "text"),
        ("loud", "true or false"),
    ],
)
def test_allowed_in_words(name: str, allowed: str) -> None:
    assert DECLARED[name].allowed == allowed


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("norm", 2.5, 2.5),
        ("norm", 10, 10.0),
        ("norm", "8/33", 8 / 33),  # what no decimal is
        ("alpha", "1/3", 1 / 3),
        ("count", 1, 1),
        ("count", 8, 8),
        ("mode", "exact", "exact"),
        ("stop", None, None),
        ("stop", 0, 0),
        ("alpha", "natural", "natural"),
        ("alpha", None, None),
        ("alpha", 1, 1.0),
        ("label", "anything", "anything"),
        ("label", "8/33", "8/33"),
        ("loud", True, True),
    ],
)
def test_legal_values(name: str, value: Any, expected: Any) -> None:
    found = check(DECLARED[name], value, "here")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm", 0.0),
        ("norm", 10.000001),
        ("norm", math.nan),
        ("norm", math.inf),
        ("norm", "1"),
        ("norm", "1/0"),
        ("norm", "0/5"),
        ("norm", "1/3/5"),
        ("count", "4/2"),
        ("norm", True),
        ("norm", None),
        ("count", 0),
        ("count", 9),
        ("count", 3.0),
        ("count", True),
        ("mode", "slow"),
        ("mode", None),
        ("stop", 6),
        ("stop", -1),
        ("alpha", "none"),
        ("alpha", -0.1),
        ("label", 3),
        ("loud", 1),
        ("loud", "true"),
    ],
)
def test_illegal_values(name: str, value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        check(DECLARED[name], value, "defense toy")
    message = str(caught.value)
    assert message.startswith(
        f"defense toy: {name}={value!r} is not allowed; {name} is {DECLARED[name].allowed}"
    )
    assert "\n" not in message


def test_a_misspelled_choice_gets_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'exact'"):
        check(DECLARED["mode"], "exakt", "here")


def test_fill_completes_and_checks() -> None:
    full = fill(DECLARED, {"count": 5, "norm": 2}, "here")
    assert full == {
        "norm": 2.0,
        "count": 5,
        "mode": "fast",
        "stop": None,
        "alpha": 0.5,
        "label": "x",
        "loud": False,
    }
    assert list(full) == list(DECLARED)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("nrm", "did you mean 'norm'"), ("zzz", "known: alpha, count, label, loud, mode, norm, stop")],
)
def test_unknown_parameters(name: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"defense toy: unknown parameter '{name}'; {hint}"):
        fill(DECLARED, {name: 1}, "defense toy")


def test_nearest_without_candidates() -> None:
    assert nearest("x", []) == "known: none"


def positional(norm: float = 1.0) -> None:
    """Takes its parameter by position."""


def bare(*, norm=1.0) -> None:  # type: ignore[no-untyped-def]
    """Has no annotation."""


def required(*, norm: float) -> None:
    """Has no default."""


def swallow(**anything: float) -> None:
    """Takes everything."""


@pytest.mark.parametrize("factory", [positional, bare, required, swallow])
def test_factories_that_break_the_contract(factory: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="must be keyword-only, annotated and have a default"):
        schema(factory)


@pytest.mark.parametrize("annotation", [list[int], dict, Annotated[complex, "z"], float | bytes])
def test_types_that_no_parameter_can_have(annotation: Any) -> None:
    with pytest.raises(TypeError, match="parameter 'x'"):
        declare("x", annotation, None)


@pytest.mark.parametrize(
    ("interval", "text", "inside", "outside"),
    [
        (Range(0, 1), "[0, 1]", (0, 1, 0.5), (-1e-9, 1.0000001)),
        (Range(0, 1, low_open=True), "(0, 1]", (1e-300, 1), (0, -1)),
        (Range(0, 0.5, high_open=True), "[0, 0.5)", (0, 0.49), (0.5, math.nan)),
        (
            Range(-2, 1e6, low_open=True, high_open=True),
            "(-2, 1e+06)",
            (0, -1.999),
            (-2, 1e6, math.inf, -math.inf),
        ),
    ],
)
def test_ranges(
    interval: Range, text: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert str(interval) == text
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)


@given(
    st.one_of(st.floats(), st.integers(), st.text(max_size=8), st.booleans(), st.none()),
    st.sampled_from(sorted(DECLARED)),
)
def test_every_value_is_taken_or_refused_in_one_line(value: Any, name: str) -> None:
    parameter = DECLARED[name]
    try:
        found = check(parameter, value, "here")
    except BadInput as error:
        assert str(error).count("\n") == 0
    else:
        assert type(found) in parameter.types or found in parameter.choices
        assert check(parameter, found, "here") == found
        if parameter.range and isinstance(found, (int, float)):
            assert found in parameter.range
