"""Malicious clients without data of the task: who holds what, what they count and send, which
attacks they can run, and how it shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Spec
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.results.figures.wording import dealt
from backstop.platform.rounds.finals import final
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import spec_to_json, validate
from backstop.platform.training.federation import Federation
from tests.arena import ARENA, figures

NOWHERE = Path("unused")
FAKES = ARENA.replace(
    attack=to_chain("gaussian", "attack"), fake_samples="mean", rounds=1, eval_every=1
)
FREE = [name for name in plugins.names("attacks") if plugins.attack_facts(name).data_free]


def built(**changes: Any) -> Federation:
    return Experiment(FAKES.replace(**changes), NOWHERE, "cpu").built


def rows(spec: Spec) -> dict[int, Tensor]:
    """What each client of the first round sends."""
    experiment = Experiment(spec, NOWHERE, "cpu")
    _, trained, _ = experiment._trained(experiment.state, experiment.built.cohort(0))
    return dict(zip(trained.client.tolist(), trained.rows, strict=True))


@pytest.mark.parametrize("alpha", [10.0, None, "shards", "labels", "sizes"])
def test_honest_clients_hold_all_the_data(alpha: float | str | None) -> None:
    federation = built(alpha=alpha)
    fakes = set(federation.malicious.tolist())
    assert len(fakes) == 4
    for client, shard in enumerate(federation.shards):
        assert bool(len(shard)) == (client not in fakes)
    held = torch.cat(federation.held)
    root_size = FAKES.root_size
    assert len(held) == len(held.unique()) == len(federation.data.train.y) - root_size
    assert federation.malicious.tolist() == built(alpha=alpha, fake_samples=None).malicious.tolist()


def test_the_honest_federation_is_the_one_without_fakes() -> None:
    """The same shards as where there are the honest clients alone, in their order."""
    alone = built(clients=16, malicious=0.0, attack=(), fake_samples=None)
    for one, other in zip(built().held, alone.shards, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("claim", "counted"), [("mean", 87), (7, 7)])
def test_fakes_weigh_what_they_claim(claim: str | int, counted: int) -> None:
    federation = built(fake_samples=claim, batch=8)
    for client, shard in enumerate(federation.shards):
        fake = client in federation.malicious.tolist()
        assert federation.sizes[client] == (counted if fake else len(shard))


def test_fakes_that_do_not_attack_send_back_the_model_and_others_train_as_ever() -> None:
    """The clean twin; and another claim changes nobody's row."""
    dormant, other = (
        rows(FAKES.replace(dormant=True, fake_samples=claim)) for claim in ("mean", 7)
    )
    fakes = set(built().malicious.tolist())
    assert fakes & set(dormant)
    for client, row in dormant.items():
        assert bool(row.any()) == (client not in fakes)
        assert torch.equal(row, other[client])


def test_training_loss_is_that_of_clients_that_train() -> None:
    experiment = Experiment(FAKES.replace(attackers="in_turn"), NOWHERE, "cpu")
    federation = experiment.built
    _, trained, _ = experiment._trained(experiment.state, federation.cohort(0))
    honest = [c not in federation.malicious.tolist() for c in trained.client.tolist()]
    record = experiment.round()
    assert record is not None
    wanted = trained.loss[torch.tensor(honest)].double().mean().item()
    assert record.metrics["round/train_loss"] == pytest.approx(wanted)


def test_the_figures_of_the_split_are_those_of_the_honest_clients() -> None:
    experiment = Experiment(FAKES.replace(alpha=None), NOWHERE, "cpu")
    record = experiment.round()
    assert record is not None
    assert 1 <= final([record])["final/size_ratio"] < 1.05


@pytest.mark.parametrize("attack", [*FREE, "darkfed | darkfed(target=1)"])
def test_attacks_without_data_run(attack: str) -> None:
    sent = rows(FAKES.replace(attack=to_chain(attack, "attack")))
    fakes = [sent[client] for client in built().malicious.tolist() if client in sent]
    assert fakes and all(row.isfinite().all() for row in fakes)
    assert any(row.any() for row in fakes) or attack == "poisonedfl"  # whose first round is zero


def test_darkfed_and_poisonedfl_do_harm_without_data() -> None:
    fakes = (("fake_samples", "mean"),)
    attacked, twin = (
        figures("darkfed(strength=5)", fakes, dormant=dormant)["final/attack_success_rate"]
        for dormant in (False, True)
    )
    assert attacked > twin + 0.1
    calm, harmed = (
        figures(attack, fakes)["final/clean_accuracy"] for attack in ("none", "poisonedfl")
    )
    assert calm > 0.9 and harmed < calm - 0.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attack": "badnets"}, "attack badnets needs some; take one that does not (darkfed"),
        ({"attack": "darkfed+neurotoxin"}, "attack neurotoxin needs some"),
        ({"malicious": 1.0}, "at least one has to be honest"),
        ({"malicious_by": "fewest"}, "none has the fewest; set malicious_by=lot"),
        ({"evaluate_by": "clients"}, "set evaluate_by=server"),
        ({"defense": "ditto"}, "without a defense whose clients keep a part of the model"),
        ({"defense": "flshield"}, "defense flshield lets clients score models on theirs"),
        ({"fake_samples": 0}, "fake_samples=0 is not allowed"),
    ],
)
def test_what_needs_data_of_fakes_is_refused_at_planning(
    changes: dict[str, Any], reason: str
) -> None:
    changes = {
        name: to_chain(value, name) if name in ("attack", "defense") else value
        for name, value in changes.items()
    }
    with pytest.raises(BadInput) as refusal:
        validate(FAKES.replace(**changes))
    assert reason in str(refusal.value) and "\n" not in str(refusal.value)


def test_every_attack_says_whether_it_needs_data() -> None:
    assert FREE == ["darkfed", "gaussian", "poisonedfl"]
    assert plugins.attack_facts("badnets").data_free is False


def test_the_document_says_it() -> None:
    fields = spec_to_json(FAKES)
    assert fields["fake_samples"] == "mean"
    assert "malicious ones hold none and claim the mean each" in dealt(fields)
    assert dealt(spec_to_json(FAKES.replace(fake_samples=None))) == "Dirichlet 10"
