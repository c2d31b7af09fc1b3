"""AGSD: its twin on linear models, trust over rounds, its claim in a small federation, and what it
costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.agsd import _adversarial, _similarity, _trust_index, agsd
from backstop.platform.contract import Samples, ServerView, Updates
from backstop.platform.examples import server_view
from backstop.platform.remedies.clusters import spectral_halves
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import agsd as twin

CLASSES, FEATURES = 3, 5
D = CLASSES * FEATURES


def linear(params: Tensor, x: Tensor) -> Tensor:
    return x.flatten(1) @ params.reshape(FEATURES, CLASSES)


def noise(
    n: int,
    d: int = D,
    name: str = "rows",
) -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", "agsd", name, n))


def view(**changes: Any) -> ServerView:
    root = Samples(noise(20, FEATURES, "root"), torch.arange(20) % CLASSES)
    known: dict[str, Any] = {"root": root, "model": linear, "classes": CLASSES} | changes
    return replace(server_view(noise(1, name="params")[0]), **known)


def given(rows: Tensor) -> Updates:
    return Updates(rows, torch.arange(1.0, len(rows) + 1), torch.arange(len(rows)))


def two_kinds(n: int, name: str = "kinds") -> Tensor:
    """Rows of two directions and of many lengths."""
    rows = 0.2 * noise(n, name=name) + noise(1, name="first")
    rows[: n // 3] += 2 * noise(1, name="second")
    return rows * torch.linspace(0.5, 2.0, n)[:, None]


@pytest.mark.parametrize("start", ["noise", "root"])
def test_inputs_are_a_step_from_where_they_begin(start: Any) -> None:
    seen, params = view(), noise(1, name="model")[0]
    x = seen.root.x
    extent = x.amax(0) - x.amin(0)
    if start == "noise":
        drawn = torch.rand(x.shape, generator=view().generator)
        x = x.mean(0) + (2 * drawn - 1) * 0.05 * extent
    gradient = twin.step(
        params.double().numpy().reshape(FEATURES, CLASSES),
        x.double().numpy(),
        seen.root.y.tolist(),
    )
    for epsilon in (0.01, 0.3):
        wanted = x - epsilon * extent * torch.from_numpy(np.sign(gradient)).float()
        wanted = wanted.maximum(x.amin(0)).minimum(x.amax(0))
        found = _adversarial(view(), params, epsilon, start)
        torch.testing.assert_close(found, wanted)


def test_the_trust_index_is_that_of_the_twin() -> None:
    logits = 3 * torch.randn(7, 12, CLASSES, generator=generator(0, "tests", "logits")).double()
    logits[2] += torch.tensor([0.0, 9.0, 0.0])  # sure of one class
    gamma = _trust_index(logits)
    assert gamma.tolist() == pytest.approx(twin.trust_index([each.numpy() for each in logits]))
    assert gamma.amax() == 1 and gamma.argmin() == 2 and gamma[2] == 0
    assert not _trust_index(logits[:1].expand(4, -1, -1)).any()


@pytest.mark.parametrize("n", [5, 9, 16])
def test_clusters_are_those_of_scikit_learn(n: int) -> None:
    for number in range(4):
        rows = two_kinds(n, f"kinds {number}")
        second = spectral_halves(_similarity(rows))
        label = torch.tensor(twin.clusters(rows.double().numpy())).bool()
        assert torch.equal(second, label) or torch.equal(second, ~label)


@pytest.mark.parametrize("n", [3, 6, 15])
def test_agrees_with_the_reference_over_rounds(n: int) -> None:
    stage = agsd()
    trust: dict[int, float] = stage.init(view())
    past: dict[int, float] = {}
    for number in range(3):
        seen, rows = view(), two_kinds(n, f"round {number}")
        inputs = _adversarial(view(), seen.params + rows.mean(0), 0.3, "noise")
        answers = [linear(seen.params + row, inputs).double().numpy() for row in rows]
        after, trust = stage.apply(given(rows), trust, seen)
        wanted, past = twin.agsd(rows.double().numpy(), answers, past)
        assert trust == pytest.approx(past)
        share = after.weight.double() / after.weight.double().sum()
        np.testing.assert_allclose(
            (share @ after.rows.double()).numpy(),
            np.zeros(D) if wanted is None else wanted,
            rtol=1e-4,
            atol=1e-6,
        )


def test_who_has_lost_trust_stays_out_until_it_is_won_back() -> None:
    rows = two_kinds(12)
    after, trust = agsd().apply(given(rows), {}, view())
    kept = after.weight.nonzero().flatten().tolist()
    assert 0 < len(kept) < 12
    assert all(trust[client] >= 0 for client in kept) and min(trust.values()) < -0.5
    doubted = agsd().apply(given(rows), {kept[0]: -1.5}, view())[0]
    assert doubted.weight.nonzero().flatten().tolist() == kept[1:]
    nobody, _ = agsd().apply(given(rows), dict.fromkeys(range(12), -9.0), view())
    assert not nobody.rows.any() and torch.equal(nobody.weight, given(rows).weight)


def test_a_model_without_finite_output_is_left_out_and_tells_nothing_about_the_others() -> None:
    rows = two_kinds(9)
    rows[8] = 3e38
    after, trust = agsd().apply(given(rows), {}, view())
    assert after.weight[8] == 0 and trust[8] == -1 and after.weight.any()
    assert after.rows.isfinite().all()


def test_models_that_answer_alike_are_all_kept_as_they_are() -> None:
    always = view(model=lambda params, x: linear(params * 0, x))
    after, trust = agsd().apply(given(two_kinds(6)), {3: 1.0}, always)
    assert torch.equal(after.weight, given(two_kinds(6)).weight) and trust == {3: 1.0}


@pytest.mark.parametrize(
    ("attack", "least", "most"),
    [
        ("badnets(share=0.2)", 0.6, 0.05),
        ("badnets(share=0.2)+model_replacement(strength=3)", 0.8, 0.05),
        ("badnets(share=0.2)+neurotoxin", 0.6, 0.4),
    ],
)
def test_it_keeps_backdoors_out(attack: str, least: float, most: float) -> None:
    undefended, defended = figures(attack), figures(attack, defense="agsd")
    assert undefended["final/attack_success_rate"] > least
    assert defended["final/attack_success_rate"] < most
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.06


def test_without_an_attack_it_throws_honest_clients_out() -> None:
    calm = figures("none", defense="agsd")
    assert calm["final/kept_weight_benign"] < 0.9
    assert calm["final/clean_accuracy"] > 0.9
