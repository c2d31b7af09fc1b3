"""FLIP: batches are hardened with true labels, and the backdoor that FedAvg takes in is mostly kept
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backstop.defenses.flip import flip
from backstop.platform.contract import ClientView, Local, PredictView, Samples, TestSet
from backstop.platform.remedies.inversion import Patches
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.training import evaluate
from backstop.search_spaces.quickstart import BASE
from tests.arena import last_metrics
from tests.views import CLASSES, client_view

ATTACKED = BASE.replace(
    attack=to_chain("badnets(share=0.3)", "attack"),
    clients=20,
    per_round=10,
    rounds=10,
    eval_every=10,
    seed=1,
)


def local(**params: float) -> Local:
    found = flip(**params).local  # type: ignore[arg-type]
    assert found
    return found


def prepared(view: ClientView, **params: float) -> Patches:
    prepare = local(**params).prepare
    assert prepare
    found: Patches = prepare(view)
    return found


def hardened(triggers: Patches, x: Tensor, y: Tensor, **params: float) -> tuple[Tensor, Tensor]:
    change = local(**params).batch
    assert change
    return change(triggers, x, y, generator(0, "tests", "flip"))


def one_pixel_each(classes: int) -> Patches:
    """The trigger of class c lights pixel c."""
    mask = torch.eye(classes).view(classes, 1, 1, classes)
    return Patches(mask, torch.ones_like(mask))


def metrics(defense: str) -> Mapping[str, float]:
    return last_metrics(ATTACKED.replace(defense=to_chain(defense, "defense")))


def test_it_keeps_out_what_fedavg_takes_in() -> None:
    undefended, defended = metrics("fedavg"), metrics("flip")
    assert undefended["round/attack_success_rate"] > 0.7
    assert defended["round/attack_success_rate"] < undefended["round/attack_success_rate"] - 0.3
    assert defended["round/clean_accuracy"] > undefended["round/clean_accuracy"] - 0.05


@pytest.mark.parametrize(("share", "stamped"), [(0.0, 0), (0.3, 3), (1.0, 10)])
def test_a_share_is_stamped_with_another_class_and_keeps_its_label(
    share: float, stamped: int
) -> None:
    x, y = torch.zeros(10, 1, 1, CLASSES), torch.arange(10) % CLASSES
    before = x.clone()
    after, labels = hardened(one_pixel_each(CLASSES), x, y, share=share)
    assert torch.equal(labels, y)
    assert torch.equal(x, before)
    lit = after.flatten(1)
    assert lit.sum(1).tolist() == [1.0] * stamped + [0.0] * (10 - stamped)
    assert (lit[:stamped].argmax(1) != y[:stamped]).all()


def test_small_triggers_are_drawn_more_often() -> None:
    mask = torch.zeros(3, 1, 4, 4)
    # 16, 2 and 4 pixels: odds of 4 to 1 for the last two
    mask[0], mask[1, 0, :2, 0], mask[2, 0, 3] = 1.0, 1.0, 1.0
    x, y = torch.zeros(5000, 1, 4, 4), torch.zeros(5000, dtype=torch.int64)
    pixels = hardened(Patches(mask, torch.ones(3, 1, 4, 4)), x, y, share=1.0)[0].sum((1, 2, 3))
    assert (pixels == 16).sum() == 0  # the samples' own class
    assert (pixels == 2).double().mean().item() == pytest.approx(0.8, abs=0.02)


def test_an_empty_mask_is_drawn_like_one_of_a_pixel() -> None:
    nothing = Patches(torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4))
    x, y = torch.ones(4, 1, 4, 4), torch.arange(4) % 3
    assert torch.equal(hardened(nothing, x, y, share=1.0)[0], x)


def test_the_triggers_come_from_a_clients_own_samples_and_generator() -> None:
    state = torch.get_rng_state()
    view, again = client_view("image"), client_view("image")
    first, second = prepared(view, samples=5), prepared(again, samples=5)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert first.mask.shape == (CLASSES, 1, 8, 8)
    assert first.pattern.shape == (CLASSES, 3, 8, 8)
    other = prepared(
        replace(client_view("image"), data=Samples(1 - view.data.x, view.data.y)), samples=5
    )
    assert not torch.equal(other.mask, first.mask)


def test_a_diverged_model_is_no_reason_to_stop() -> None:
    view = client_view("image")
    broken = prepared(replace(view, params=view.params * torch.inf))
    after, _ = hardened(broken, view.data.x, view.data.y, share=1.0)
    assert after.isfinite().all()


def test_a_client_with_one_sample() -> None:
    view = client_view("image")
    found = prepared(replace(view, data=Samples(view.data.x[:1], view.data.y[:1])))
    # 0.3 of one sample is none
    after, _ = hardened(found, view.data.x[:1], view.data.y[:1], share=0.3)
    assert found.mask.isfinite().all()
    assert torch.equal(after, view.data.x[:1])


def test_predictions_of_low_confidence_are_neither_right_nor_attacked() -> None:
    outputs = torch.tensor([[0.9, 0.05, 0.05], [0.3, 0.35, 0.35]]).log()
    truth = torch.tensor([0, 0])
    defense = flip(confidence=0.4)
    assert defense.predict and flip(confidence=0.0).predict is None
    unsure = outputs[:, [1, 0, 2]]  # 0.35, 0.3, 0.35: as unsure, and right without the rejection
    for logits in (outputs, torch.stack([outputs[0], unsure[1]])):
        view = PredictView(torch.zeros(1), lambda _, logits=logits: logits, torch.Generator())
        found = defense.predict(view)
        assert found.radius is None and found.label.tolist() == [0, -1]
        assert evaluate.accuracy(found.label, Samples(torch.zeros(2), truth)) == 0.5
    attacked = TestSet(torch.zeros(2), torch.tensor([1, 1]), truth)
    assert evaluate.success(found.label, attacked) == {
        "round/attack_success_rate": 0.0,
        "round/robust_accuracy": 0.5,
    }


def test_the_final_figures_are_those_with_the_rejection() -> None:
    last = metrics("flip(confidence=0.8)")
    assert last["repaired/rejected_rate"] > 0
    assert last["repaired/clean_accuracy"] < last["round/clean_accuracy"]
    assert last["repaired/clean_accuracy"] <= 1 - last["repaired/rejected_rate"]
    assert "repaired/clean_accuracy" not in metrics("flip(confidence=0)")


def test_the_price_follows_threshold_patience_and_factor() -> None:
    view = client_view("image")
    base = prepared(view, steps=30)
    for changed in (
        {"patience": 2},
        {"factor": 4.0, "patience": 2},
        {"threshold": 0.1, "patience": 2},
    ):
        other = prepared(client_view("image"), steps=30, **changed)
        assert not torch.equal(base.mask, other.mask)
        base = other
