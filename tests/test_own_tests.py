"""Each client's own test data, and the figures over clients."""

from __future__ import annotations

import pytest
import torch

from backstop.platform.commands.client_figures import client_lines
from backstop.platform.contract import Prediction, Samples, TestSet
from backstop.platform.params import BadInput
from backstop.platform.rounds.finals import doubts
from backstop.platform.specs.change import change_spec
from backstop.platform.specs.spec import validate
from backstop.platform.training.evaluate import Probe
from backstop.platform.training.own_tests import (
    MOST_TESTED,
    OwnPredictions,
    OwnTest,
    client_figures,
    deal_tests,
    federation_figures,
    own_tests,
    proportioned,
)
from tests.keepers import SMALL, experiment


@pytest.mark.parametrize(
    ("held", "have", "wanted"),
    [
        ([1, 1], [1000, 1000], [100, 100]),
        ([3, 1], [1000, 1000], [150, 50]),
        ([0, 9], [1000, 1000], [0, 200]),
        ([1, 1], [4, 1000], [4, 4]),  # as far as the scarcest class lasts
        ([1, 1], [0, 50], [0, 50]),  # a class that the test set lacks is left out
        ([5, 0], [0, 50], [0, 0]),
        ([1, 1, 1], [1000] * 3, [67, 67, 66]),  # the first among equals
    ],
)
def test_labels_are_in_proportion(held: list[int], have: list[int], wanted: list[int]) -> None:
    assert proportioned(torch.tensor(held), torch.tensor(have)) == wanted


def test_parts_are_like_the_clients_and_the_same_for_every_defense() -> None:
    built = experiment(SMALL.replace(alpha=0.3)).built
    again = experiment(SMALL.replace(alpha=0.3, defense=())).built
    parts = deal_tests(built.data, built.shards, 0)
    for part, same in zip(parts, deal_tests(again.data, again.shards, 0), strict=True):
        assert torch.equal(part, same)
    labels = built.data.test.y
    for part, shard in zip(parts, built.shards, strict=True):
        assert 0 < len(part) <= MOST_TESTED
        assert len(part.unique()) == len(part)
        own = built.data.train.y[shard].bincount(minlength=10).double()
        drawn = labels[part].bincount(minlength=10).double()
        assert (own / own.sum() - drawn / drawn.sum()).abs().max() <= 1 / len(part)
    other = deal_tests(built.data, built.shards, 1)
    assert any(not torch.equal(a, b) for a, b in zip(parts, other, strict=True))


def probe(*, aligned: bool = True) -> Probe:
    y = torch.tensor([0, 1, 2, 1])
    clean = Samples(torch.zeros(4, 1), y)
    return Probe(clean, TestSet(torch.ones(4, 1), torch.zeros_like(y), y), aligned, aligned)


def test_the_same_samples_are_measured_with_and_without_the_trigger() -> None:
    given = own_tests([torch.tensor([0, 1, 3])], probe(), [0], seed=0)[0]
    assert given.clean.tolist() == [0, 1, 3]
    assert given.triggered.tolist() == [1, 3]  # the first has the wanted label already
    predicted = OwnPredictions(
        Prediction(torch.tensor([0, 0, 1])), Prediction(torch.tensor([0, 1]))
    )
    figures = client_figures(predicted, given, probe(), defended=False)
    assert figures["round/clean_accuracy"] == pytest.approx(2 / 3)
    assert figures["round/attack_success_rate"] == 0.5
    assert figures["round/untriggered_target_rate"] == 0.5
    assert figures["round/trigger_effect"] == 0.0
    assert figures["round/robust_accuracy"] == 0.5


def test_triggered_inputs_of_the_attacks_own_are_the_same_for_all() -> None:
    parts = own_tests([torch.tensor([0]), torch.tensor([1])], probe(aligned=False), [0, 1], seed=0)
    assert parts[0].triggered.tolist() == parts[1].triggered.tolist() == [0, 1, 2, 3]


def two_adversaries() -> Probe:
    """Both stamp four samples of classes 0, 1, 2, 1; one wants class 0, the other class 2."""
    y = torch.tensor([0, 1, 2, 1])
    clean = Samples(torch.zeros(4, 1), y)
    wanted, group = torch.tensor([0] * 4 + [2] * 4), torch.tensor([0] * 4 + [1] * 4)
    made = TestSet(torch.ones(8, 1), wanted, y.repeat(2), paired=True, group=group)
    return Probe(clean, made, paired=True, aligned=True)


def test_under_each_of_several_adversaries_a_client_has_its_own_samples() -> None:
    part = own_tests([torch.tensor([1, 2])], two_adversaries(), [0], seed=0)[0]
    assert part.triggered.tolist() == [1, 2, 5]  # the second wants what sample 2 is
    predicted = OwnPredictions(
        Prediction(torch.tensor([2, 0])), Prediction(torch.tensor([0, 1, 2]))
    )
    figures = client_figures(predicted, part, two_adversaries(), defended=False)
    assert figures["round/attack_success_rate/1"] == 0.5
    assert figures["round/untriggered_target_rate/1"] == 0.5
    assert figures["round/attack_success_rate/2"] == 1.0
    assert figures["round/untriggered_target_rate/2"] == 1.0
    assert figures["round/trigger_effect/2"] == 0.0


def test_the_worst_adversary_is_one_for_all_clients() -> None:
    """The mean of each client's worst would be nobody's success."""

    def rates(first: float, second: float) -> dict[str, float]:
        return {
            "round/attack_success_rate/1": first,
            "round/robust_accuracy/1": 0.125,
            "round/attack_success_rate/2": second,
            "round/robust_accuracy/2": 0.25,
        }

    clients = {0: rates(1.0, 0.25), 1: rates(0.0, 0.5), 2: rates(0.0, 1.0), 9: rates(1.0, 0.0)}
    figures = federation_figures(clients, malicious=[9])
    assert figures["round/attack_success_rate"] == pytest.approx(1.75 / 3)
    assert figures["round/attack_success_rate/1"] == pytest.approx(1 / 3)
    assert figures["round/attack_success_rate/2"] == figures["round/attack_success_rate"]
    assert figures["round/robust_accuracy"] == 0.25
    assert figures["round/worst_tenth_success"] == 1.0
    assert figures["round/malicious_success"] == 1.0
    assert "round/robust_accuracy/2" not in figures


@pytest.mark.parametrize("changes", [{"evaluate_by": "clients"}, {"defense": "fedrep"}])
def test_somebody_honest_has_to_be_there_to_be_measured(changes: dict[str, str]) -> None:
    spec = SMALL.replace(malicious=1.0)
    for key, value in changes.items():
        spec = change_spec(spec, key, value)
    with pytest.raises(BadInput, match=r"those of honest ones .*; at most"):
        validate(spec)
    validate(spec.replace(defense=(), evaluate_by="server"))
    assert doubts({"final/measured_clients": 0.0})


def test_a_client_without_test_data_has_no_figures() -> None:
    nothing = OwnTest(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    assert client_figures(OwnPredictions(None, None), nothing, probe(), defended=False) == {}


def test_the_worst_tenth_is_a_tenth_and_malicious_clients_stand_apart() -> None:
    rates = {
        client: {"round/clean_accuracy": client / 100, "round/attack_success_rate": client / 100}
        for client in range(21)
    }
    figures = federation_figures(rates, malicious=[0])
    assert figures["round/clean_accuracy"] == pytest.approx(0.105)
    assert figures["round/worst_tenth_accuracy"] == pytest.approx(0.015)  # of 1 and 2
    assert figures["round/worst_tenth_success"] == pytest.approx(0.195)  # of 19 and 20
    assert figures["round/malicious_accuracy"] == 0.0
    few = federation_figures({1: {"round/clean_accuracy": 0.5}}, malicious=[])
    assert few == {"round/clean_accuracy": 0.5, "round/worst_tenth_accuracy": 0.5}
    assert federation_figures({1: {"round/clean_accuracy": 0.5}}, malicious=[1]) == {
        "round/malicious_accuracy": 0.5
    }


@pytest.mark.parametrize(
    ("count", "called"), [(1.0, "1 honest client "), (2.0, "2 honest clients ")]
)
def test_how_many_clients_were_measured_is_said_in_words(count: float, called: str) -> None:
    first = client_lines({"final/measured_clients": count, "final/clean_accuracy": 0.5})[0]
    assert first.startswith(called)
