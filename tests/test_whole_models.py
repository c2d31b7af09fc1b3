"""Rounds of a server whose clients send whole models, without any stack around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import backstop
from backstop.platform import seeds
from backstop.platform.library.replies import Reply, of_types, unusable
from backstop.platform.library.whole_models import WholeModels, read_defense
from backstop.platform.params import BadInput


def model(index: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seeds.stream(index, "whole models"))
    return {
        "weight": rng.normal(size=(4, 5)).astype(np.float32),
        "bn.running_mean": rng.normal(size=4).astype(np.float32),
        "steps": np.array(index),
    }


def replies(count: int = 6) -> list[Reply]:
    return [Reply(100 - index, model(index + 1), 10 + index) for index in range(count)]


def rounds(chain: str) -> WholeModels:
    return WholeModels(backstop.defense(chain), None, None)


@pytest.mark.parametrize(
    "chain", ["norm_clip(norm=1)+median", "foolsgold(features=all)", "crfl(norm=9, noise=0.1)"]
)
def test_the_next_model_is_the_librarys(chain: str) -> None:
    server, library = rounds(chain), backstop.defense(chain)
    params: Any = model()
    for _ in range(3):
        sent = server.send(params)
        start = library.send(params) if library.sends else params
        sends = [reply.arrays for reply in replies()]
        weights, ids = zip(*((reply.weight, reply.client) for reply in replies()), strict=True)
        expected = library.aggregate_models(sends, weights, ids, params=start)
        found = server.after(replies())
        assert not found.left_out
        assert isinstance(found.model, dict)
        assert isinstance(sent, dict)
        for name in expected:
            assert sent[name].tobytes() == np.asarray(start[name]).tobytes()
            assert found.model[name].tobytes() == np.asarray(expected[name]).tobytes()
        params = found.model


STRAY: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"weight": np.zeros(3, np.float32)}, "array weight has shape (3,)"),
    "scalar": ({"weight": 3.0}, "array weight is float"),
    "text": ({"weight": np.full((4, 5), "a")}, "array weight is ndarray"),
    "more": ({"other": np.zeros(3)}, "not those of the model: other"),
}


@pytest.mark.parametrize("case", STRAY)
def test_a_client_that_sends_something_else_is_left_out(case: str) -> None:
    change, reason = STRAY[case]
    server = rounds("median")
    server.send(model())
    alone = server.after(replies()).model
    server.send(model())
    stray = Reply(7, model(9) | change, 50)
    found = server.after([stray, *replies()])
    assert reason in found.left_out[7]
    assert isinstance(found.model, dict)
    assert isinstance(alone, dict)
    assert all((found.model[name] == alone[name]).all() for name in alone)


@pytest.mark.parametrize("weight", [0, -3, float("nan"), float("inf"), None, [1], "many"])
def test_a_sample_count_that_is_none_leaves_its_client_out(weight: Any) -> None:
    assert "its sample count is" in unusable(Reply(1, model(), weight), model())


def test_number_types_and_counters_are_the_models() -> None:
    sent = {name: value.astype(np.float64) for name, value in model(1).items()}
    typed = of_types(sent, model())
    assert isinstance(typed, dict)
    assert (typed["weight"].dtype, typed["steps"]) == (np.float32, 0)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in model().items()}
    assert "no numbers as the model has them" in unusable(Reply(1, model(), 3), tensors)
    typed = of_types({name: value.double() for name, value in tensors.items()}, tensors)
    assert isinstance(typed, dict)
    assert typed["weight"].dtype == torch.float32


def test_layers_without_names() -> None:
    server, library = rounds("median"), backstop.defense("median")
    start = list(model().values())
    sends = [list(reply.arrays.values()) for reply in replies()]  # type: ignore[union-attr]
    server.send(start)
    found = server.after([Reply(index, layers, 5) for index, layers in enumerate(sends)])
    expected = library.aggregate_models(sends, params=start)
    assert isinstance(found.model, list)
    assert all((ours == theirs).all() for ours, theirs in zip(found.model, expected, strict=True))


def test_where_nobody_is_left_there_is_no_model() -> None:
    server = rounds("median")
    server.send(model())
    found = server.after([Reply(1, {}, 3)])
    assert found.model is None
    assert list(found.left_out) == [1]


def test_what_is_missing_is_said_at_the_start() -> None:
    with pytest.raises(
        BadInput, match=r"defense fltrust needs more than updates; give model=.*root="
    ):
        rounds("fltrust")
    root = torch.randn(12, 4, generator=seeds.generator(0, "root")), torch.arange(12) % 3
    net = nn.Linear(4, 3)
    WholeModels(backstop.defense("fltrust"), net, root)
    with pytest.raises(BadInput, match="no model was sent"):
        rounds("median").after(replies())
    made = backstop.defense("median", seed=4)
    assert read_defense(made) is made
    assert read_defense("median").spec.defense == made.spec.defense
