"""A run that is evaluated on validation data: none of it is the test set's, and nobody trains on
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform.contract import Data, Part, Samples, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.rounds import starts
from backstop.platform.specs.part import to_chain
from backstop.platform.training import loading
from backstop.platform.training.partition import hold_out_validation, validation_size

NOWHERE = Path("unused")
SPEC = Spec(
    clients=12,
    per_round=6,
    malicious=0.34,
    selection="fixed",
    rounds=2,
    batch=16,
    block=4,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.1}),
    evaluate_on="validation",
)
ON = {
    "digits": SPEC.replace(attack=to_chain("badnets+model_replacement(strength=4)", "attack")),
    "synthetic": SPEC.replace(
        dataset=Part("synthetic"), attack=to_chain("edge_case(share=0.5)", "attack")
    ),
    "topics": SPEC.replace(
        dataset=Part("topics"), model=Part("bag_of_words"), attack=to_chain("edge_phrase", "attack")
    ),
}


def rows(x: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


def figures(spec: Spec) -> list[dict[str, float]]:
    return [dict(record.metrics) for record in run(spec, folder=NOWHERE, device="cpu")]


@pytest.mark.parametrize("name", ON)
def test_it_is_training_data_that_no_client_and_no_root_set_holds(name: str) -> None:
    held = Experiment(ON[name], NOWHERE, "cpu").built
    usual = Experiment(ON[name].replace(evaluate_on="test"), NOWHERE, "cpu").built
    train = held.data.train
    dealt = torch.cat(held.shards)
    left = torch.ones(len(train.y), dtype=torch.bool)
    left[dealt] = False
    assert held.data.root is not None and usual.data.root is not None
    assert torch.equal(held.data.root.x, usual.data.root.x)  # one server in both
    candidates = len(train.y) - SPEC.root_size
    assert len(held.data.test.y) == validation_size(candidates) == candidates - len(dealt)
    assert rows(held.data.test.x) <= rows(train.x[left])
    assert not torch.equal(held.data.test.x, usual.data.test.x)
    assert torch.equal(usual.data.test.x, loading.load_dataset(ON[name].dataset, NOWHERE).test.x)


@pytest.mark.parametrize("name", ON)
def test_another_test_set_changes_no_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ON[name]
    before, usual = figures(spec), figures(spec.replace(evaluate_on="test"))
    real = loading.load_dataset(spec.dataset, NOWHERE)
    halved = real._replace(test=Samples(*(part[: len(part) // 2] for part in real.test)))

    def other(part: Part, folder: Path) -> Data:
        return halved

    monkeypatch.setattr(loading, "load_dataset", other)
    assert figures(spec) == before
    assert figures(spec.replace(evaluate_on="test")) != usual


def test_triggered_inputs_are_made_of_it() -> None:
    experiment = Experiment(ON["digits"], NOWHERE, "cpu")
    triggered = experiment.probe().triggered
    assert triggered is not None
    held = experiment.built.data.test
    assert torch.equal(triggered.truth, held.y)
    changed = (triggered.x.float() * 16 - held.x.float() * 16).flatten(1).any(1)
    assert changed.any()


@pytest.mark.parametrize("name", ["synthetic", "topics"])
def test_edge_cases_are_those_of_it(name: str) -> None:
    experiment = Experiment(ON[name], NOWHERE, "cpu")
    triggered = experiment.probe().triggered
    assert triggered is not None and len(triggered.wanted)
    assert rows(triggered.x) <= rows(experiment.built.data.test.x)


def test_a_datasets_own_edge_cases_are_those_for_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = torch.rand(60, 1, 8, 8)
    published = torch.rand(30, 1, 8, 8)

    def pair(*_: Any) -> tuple[Tensor, Tensor]:
        return pool, published

    plugin = loading.dataset(Part("digits"))._replace(edge_cases=pair, edge_target=3)
    monkeypatch.setattr(loading, "dataset", lambda _: plugin)
    monkeypatch.setattr(loading, "load_edge_cases", pair)
    monkeypatch.setattr(loading, "edge_content", lambda *_: "edges")
    attacked = SPEC.replace(attack=to_chain("edge_case", "attack"))
    experiment = Experiment(attacked, NOWHERE, "cpu")
    edge_cases = experiment.views.attack(experiment.state).edge_cases
    assert edge_cases is not None
    train, held = (rows(part.x) for part in edge_cases())
    assert len(held) == 15 and not train & held and train | held == rows(pool)
    triggered = experiment.probe().triggered
    assert triggered is not None and rows(triggered.x) == held
    usual = Experiment(attacked.replace(evaluate_on="test"), NOWHERE, "cpu").probe().triggered
    assert usual is not None and rows(usual.x) == rows(published)


def test_copies_of_a_tables_row_are_on_one_side() -> None:
    x = (torch.arange(3000) % 1000).float()[:, None]
    part, left = hold_out_validation(x, 0, kind="table")
    assert len(part) == 300
    assert not rows(x[part]) & rows(x[left])
    assert torch.equal(torch.cat([part, left]).sort().values, torch.arange(3000))


def test_the_seed_draws_it() -> None:
    x = torch.zeros(1000, 1, 2, 2)
    first, again, other = (hold_out_validation(x, seed, kind="image")[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(BadInput, match=r"evaluate_on=validation is not allowed with 3 samples"):
        hold_out_validation(x[:3], 0, kind="image")


def test_its_warm_up_does_not_train_on_it() -> None:
    warm = starts.warmup_spec(SPEC.replace(warmup=3))
    assert warm.evaluate_on == "validation"
    assert warm.id != starts.warmup_spec(SPEC.replace(warmup=3, evaluate_on="test")).id
