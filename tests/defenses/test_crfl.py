from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backstop.defenses import crfl as module
from backstop.defenses.crfl import crfl
from backstop.platform.contract import (
    Defense,
    Part,
    Prediction,
    PredictView,
    ServerView,
    Spec,
    Updates,
)
from backstop.platform.experiment import Experiment
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from tests.references import crfl as twin
from tests.views import server_view

ROWS = torch.randn(6, 50, generator=generator(0, "tests", "rows"))
WEIGHT = torch.tensor([1.0, 5.0, 2.0, 2.0, 9.0, 1.0])
GIVEN = Updates(ROWS, WEIGHT, torch.arange(6))


def stepped(view: ServerView, given: Updates, norm: float, noise: float) -> torch.Tensor:
    """The model as the server sets it, parameters + server_lr · row, and as the next round's
    clients are sent it.
    """
    defense = crfl(norm=norm, noise=noise)
    after, state = defense.apply(given, defense.init(view), view)
    assert defense.send
    return defense.send(state, replace(view, params=view.params + view.server_lr * after.rows[0]))[
        0
    ]


@pytest.mark.parametrize("server_lr", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("norm", [0.5, 3.0, 1e3])
def test_the_server_lands_on_the_clipped_and_perturbed_model(server_lr: float, norm: float) -> None:
    view = replace(server_view(50), server_lr=server_lr)
    draws = torch.randn(50, generator=server_view(50).generator).double().numpy()
    wanted = twin.crfl(
        ROWS.double().numpy(),
        WEIGHT.double().numpy(),
        view.params.double().numpy(),
        server_lr,
        draws,
        norm,
        0.01,
    )
    np.testing.assert_allclose(
        stepped(view, GIVEN, norm, 0.01).double().numpy(), wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", [1e3, 1e30, 3e38])
@pytest.mark.parametrize("server_lr", [1.0, 5.0])
def test_no_update_makes_the_model_longer_than_the_bound(size: float, server_lr: float) -> None:
    given = GIVEN._replace(rows=torch.full((6, 50), size))
    view = replace(server_view(50), server_lr=server_lr)
    assert stepped(view, given, 4.0, 0.0).norm().item() == pytest.approx(4.0, rel=1e-5)


def test_below_the_bound_and_without_noise_it_is_the_weighted_mean() -> None:
    after = crfl(norm=1e3, noise=0.0).apply(GIVEN, None, server_view(50))[0]
    torch.testing.assert_close(after.rows[0], WEIGHT @ ROWS / WEIGHT.sum())


def test_the_noise_has_the_given_deviation_on_the_model_whatever_the_server_lr() -> None:
    view = replace(server_view(40_000), server_lr=0.1)
    given = Updates(torch.zeros(2, 40_000), torch.ones(2), torch.arange(2))
    assert (stepped(view, given, 1e4, 0.5) - view.params).std().item() == pytest.approx(
        0.5, rel=0.02
    )


@pytest.mark.parametrize("noise", [0.0, 0.01, 5.0])
def test_the_final_model_is_the_clipped_one_without_noise(noise: float) -> None:
    view = replace(server_view(2), params=torch.tensor([3.0, 4.0]))
    defense = crfl(norm=5.0, noise=noise)
    assert defense.finish and defense.send
    still = Updates(torch.zeros(2, 2), torch.ones(2), torch.arange(2))
    after, state = defense.apply(still, defense.init(view), view)
    landed = replace(view, params=view.params + after.rows[0])
    assert defense.finish(state, landed).tolist() == [3.0, 4.0]
    assert (defense.send(state, landed)[0].tolist() == [3.0, 4.0]) == (noise == 0)


def test_a_model_that_a_later_stage_moved_is_clipped_and_not_thrown_away() -> None:
    view = replace(server_view(2), params=torch.tensor([3.0, 4.0]))
    defense = crfl(norm=5.0)
    _, state = defense.apply(Updates(torch.zeros(2, 2), torch.ones(2), torch.arange(2)), None, view)
    assert defense.finish
    torch.testing.assert_close(
        defense.finish(state, replace(view, params=torch.tensor([0.0, 8.0]))),
        torch.tensor([0.0, 5.0]),
    )


def ask(
    defense: Defense, params: torch.Tensor, scores: Callable[[torch.Tensor], torch.Tensor]
) -> Prediction:
    def asked(
        of: torch.Tensor, _: Callable[[torch.Tensor], torch.Tensor] | None = None, /
    ) -> torch.Tensor:
        return scores(of)

    assert defense.predict
    return defense.predict(PredictView(params, asked, generator(0, "tests", "draws")))


def test_the_smoothed_label_is_the_majority_of_noised_models() -> None:
    def scores(params: torch.Tensor) -> torch.Tensor:
        """The first sample's label is 1 for a positive parameter; the second's is always 2."""
        return torch.stack(
            [torch.tensor([0.0, params[0].item(), -9.0]), torch.tensor([0.0, 0.0, 1.0])]
        )

    shares = ask(crfl(noise=1.0, draws=2000), torch.tensor([0.5]), scores)
    assert shares.label.tolist() == [1, 2]
    assert ask(crfl(noise=1.0, draws=2000), torch.tensor([-0.5]), scores).label.tolist() == [0, 2]
    p, slack = 0.5 * (1 + math.erf(0.5 / math.sqrt(2))), math.sqrt(math.log(1000) / 4000)
    low, high = p - slack, 1 - p + slack
    expected = math.sqrt(-2 * math.log(1 - (math.sqrt(low) - math.sqrt(high)) ** 2))
    assert shares.radius is not None and shares.radius[0].item() == pytest.approx(
        expected, rel=0.15
    )
    assert shares.radius[1] > shares.radius[0]


def test_a_vote_that_is_not_sure_is_not_certified() -> None:
    shares = torch.tensor(
        [[0.5, 0.5, 0.0], [0.55, 0.45, 0.0], [0.9, 0.05, 0.05]], dtype=torch.float64
    )
    found = module._radius(shares, 0.06, 0.01, 15.0, 0)
    # with the bounds' difference squared the first would have one
    assert found[:2].tolist() == [0.0, 0.0] and found[2] > 0


def test_the_radius_is_that_of_the_authors_formula() -> None:
    """Their code for MNIST, certify_mnist.py: its radius in the size of the trigger, and what that
    trigger does to the model.
    """
    attackers, clients, steps, rate = 2, 20, 30, 0.001
    scale, share, bound, noise, quiet = 100, 0.05, 3.0, 0.01, 5
    lipschitz = math.sqrt(2 + 2 * bound + bound**2)
    weights = attackers * (1 / clients) ** 2
    p_a, p_b = 0.9, 0.06
    contraction = math.erf(15.0 / noise / math.sqrt(2)) ** quiet
    fraction = -math.log(1 - (math.sqrt(p_a) - math.sqrt(p_b)) ** 2) * noise**2
    trigger = math.sqrt(
        fraction
        / (
            2
            * attackers
            * steps**2
            * lipschitz**2
            * weights
            * scale**2
            * rate**2
            * share**2
            * contraction
        )
    )
    power = 2 * math.sqrt(attackers * weights) * scale * steps * lipschitz * rate * share
    found = module._radius(torch.tensor([[p_a, p_b]], dtype=torch.float64), 0.0, noise, 15.0, quiet)
    assert found.item() / power == pytest.approx(trigger, rel=1e-9)


def test_later_rounds_widen_the_certificate_where_the_noise_is_large() -> None:
    shares = torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    assert module._radius(shares, 0.0, 1.0, 1.0, 3) > module._radius(shares, 0.0, 1.0, 1.0, 0)


SMALL = Spec(
    clients=8,
    per_round=4,
    malicious=0.25,
    selection="fixed",
    rounds=2,
    root_size=20,
    attack=to_chain("badnets", "attack"),
)


def last(defense: str) -> tuple[Experiment, dict[str, Any]]:
    experiment = Experiment(
        SMALL.replace(defense=to_chain(defense, "defense")), Path("unused"), "cpu"
    )
    records = [experiment.round() for _ in range(SMALL.rounds)]
    assert records[-1]
    return experiment, dict(records[-1].metrics)


def test_figures_of_every_round_are_of_the_model_without_noise_and_the_last_of_the_vote() -> None:
    loud, figures = last("crfl(norm=4, noise=0.5, draws=20)")
    assert figures["round/clean_accuracy"] != figures["repaired/clean_accuracy"]
    assert loud.state.params.norm().item() <= 4.0001
    assert 0 <= figures["repaired/certified_accuracy"] <= figures["repaired/certified_rate"] <= 1
    assert figures["repaired/certified_radius"] >= 0
    quiet, still = last("crfl(norm=4, noise=0.001, draws=20)")
    assert still["repaired/clean_accuracy"] == pytest.approx(
        still["round/clean_accuracy"], abs=0.01
    )
    assert still["repaired/certified_rate"] > figures["repaired/certified_rate"]
    _, plain = last("crfl(norm=4, noise=0.001, draws=0)")
    assert (
        "repaired/certified_rate" not in plain
        and plain["repaired/clean_accuracy"] == plain["round/clean_accuracy"]
    )
    assert quiet.spec.defense == (
        Part("crfl", {"norm": 4.0, "noise": 0.001, "draws": 20, "quiet": 0, "alpha": 0.001}),
    )
