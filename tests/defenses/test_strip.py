"""STRIP: what it rejects is what NumPy rejects, and triggered inputs more than clean ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.strip import strip
from backstop.platform.contract import PredictView, Samples
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import validate
from backstop.platform.training import evaluate
from backstop.platform.training.loading import data_folder
from backstop.platform.workers.clients import InProcess
from backstop.search_spaces.quickstart import BASE
from tests.arena import last_metrics
from tests.references import strip as twin

ATTACKED = BASE.replace(
    attack=to_chain("badnets(share=0.3)", "attack"),
    clients=20,
    per_round=10,
    rounds=15,
    eval_every=15,
    seed=1,
)
WEIGHTS = torch.randn(12, 4, generator=generator(0, "tests", "strip"))


def model(_: Tensor, x: Tensor) -> Tensor:
    return 6 * x.flatten(1) @ WEIGHTS


def view(inputs: Tensor, root: Tensor) -> PredictView:
    def scores(params: Tensor, change: Callable[[Tensor], Tensor] | None = None, /) -> Tensor:
        return model(params, change(inputs) if change else inputs)

    samples = Samples(root, torch.zeros(len(root), dtype=torch.int64))
    return PredictView(torch.zeros(1), scores, generator(0, "tests", "blends"), model, samples)


def metrics(defense: str, attack: str = "badnets(share=0.3)") -> Mapping[str, float]:
    return last_metrics(
        ATTACKED.replace(
            defense=to_chain(defense, "defense"),
            attack=to_chain(attack, "attack"),
        )
    )


@pytest.mark.parametrize("refused", [0.05, 0.3, 0.9])
def test_it_rejects_what_the_slow_form_rejects(refused: float) -> None:
    draws = generator(1, "tests", "strip")
    inputs, root = (torch.rand(count, 3, 2, 2, generator=draws) for count in (30, 8))
    asked = view(inputs, root)
    predict = strip(blends=5, refused=refused).predict
    assert predict
    labels = predict(asked).label.tolist()
    drawn = torch.randint(8, (5,), generator=generator(0, "tests", "blends"))
    exact = WEIGHTS.double().numpy()
    wanted = twin.strip(
        inputs.double().numpy(),
        root.double().numpy(),
        root[drawn].double().numpy(),
        lambda x: 6 * x.reshape(len(x), -1) @ exact,
        refused,
    )
    assert labels == wanted
    assert np.unique(labels).size > 2
    assert -1 in labels or refused < 0.1


def test_inputs_of_the_attackers_own_are_not_rejected() -> None:
    attack = "semantic(source=7, tail=0.5, share=0.8)+model_replacement(strength=4)"
    last = metrics("strip(blends=30)", attack)
    assert last["round/attack_success_rate"] > 0.5
    assert last["repaired/attack_success_rate"] > last["round/attack_success_rate"] - 0.1


def test_triggered_inputs_are_rejected_and_clean_ones_are_labeled() -> None:
    last = metrics("strip(blends=30)")
    assert last["round/attack_success_rate"] > 0.8
    assert last["repaired/attack_success_rate"] < 0.15
    assert last["repaired/rejected_triggered_rate"] > 0.8
    assert last["repaired/rejected_rate"] < 0.15
    assert last["repaired/clean_accuracy"] > last["round/clean_accuracy"] - 0.12


def test_threads_label_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "BATCH", 50)  # so that each thread has several of 360 inputs
    spec = ATTACKED.replace(
        rounds=2,
        eval_every=2,
        defense=to_chain("strip(blends=3, refused=0.3)", "defense"),
    )

    def last(threads: int) -> Mapping[str, float]:
        experiment = Experiment(spec, data_folder(), "cpu", InProcess(threads))
        records = [experiment.round(), experiment.round()]
        experiment.close()
        assert records[-1]
        return records[-1].metrics

    one = last(1)
    assert 0 < one["repaired/rejected_rate"] < 1
    assert one == last(2)


def test_it_asks_for_a_root_set() -> None:
    with pytest.raises(BadInput, match="root"):
        validate(ATTACKED.replace(defense=to_chain("strip", "defense"), root_size=0))
