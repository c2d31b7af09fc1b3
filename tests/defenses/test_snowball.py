from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score
from torch import Tensor

from backstop.defenses.snowball import _clusters, _separation, snowball
from backstop.platform import robust
from backstop.platform.contract import Slot, Updates
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import snowball as twin
from tests.views import server_view, uneven

LAYOUT = (
    Slot("first.weight", 0, (5, 4)),
    Slot("first.bias", 20, (5,)),
    Slot("middle.weight", 25, (5, 5)),
    Slot("last.weight", 50, (2, 5)),
)
VOTING = (LAYOUT[0].span, LAYOUT[3].span)


def noise(n: int, d: int = 60, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def chosen(rows: Tensor, elected: float = 0.1, far: float = 0.2) -> list[int]:
    view = replace(server_view(60), layout=LAYOUT)
    after: Updates = snowball(elected=elected, far=far).apply(uneven(rows), None, view)[0]
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 12, 30])
@pytest.mark.parametrize("far", [0.0, 0.2, 1.0])
def test_agrees_with_the_reference(n: int, far: float) -> None:
    rows = noise(n)
    rows[n // 2] = rows[0]
    rows[-1] = 0.0
    for elected in (0.1, 0.5):
        wanted = twin.chosen(rows.double().numpy(), VOTING, elected, far)
        assert chosen(rows, elected, far) == wanted


@pytest.mark.parametrize("starts", [[0, 7], [3, 1, 9, 22], list(range(12))])
def test_clusters_and_scores_are_those_of_scikit_learn(starts: list[int]) -> None:
    points = noise(30, 8, "points")
    squared = robust.distances(points)
    label = _clusters(squared, torch.tensor(starts))
    found = KMeans(len(starts), init=points[starts].numpy(), n_init=1, tol=0).fit(points.numpy())
    assert label.tolist() == found.labels_.tolist()
    score = calinski_harabasz_score(points.numpy(), found.labels_)
    assert _separation(squared, label) == pytest.approx(score, rel=1e-4)


def test_a_minority_is_not_elected_unless_its_rows_are_more_alike_than_those_of_others() -> None:
    """The tightest cluster has the highest score: its members elect each other."""
    rows, apart = noise(20) + 1.0, noise(4, name="malicious")
    rows[:4] = apart - 1.0
    assert not set(chosen(rows, elected=0.3)) & set(range(4))
    rows[:4] = 0.01 * apart - 1.0
    assert set(range(4)) < set(chosen(rows, elected=0.3))


def test_only_the_first_and_the_last_weight_vote() -> None:
    rows = noise(12)
    moved = rows.clone()
    moved[:, 20:50] = 100 * noise(12, 30, "elsewhere")
    assert chosen(rows, elected=0.3) == chosen(moved, elected=0.3)
    moved[:, 50:] = 100 * noise(12, 10, "elsewhere")
    assert chosen(rows, elected=0.3) != chosen(moved, elected=0.3)


@pytest.mark.parametrize(("n", "elected", "count"), [(10, 0.1, 1), (11, 0.1, 2), (10, 1.0, 10)])
def test_the_share_of_the_elected_is_rounded_up(n: int, elected: float, count: int) -> None:
    assert len(chosen(noise(n), elected)) == count


def test_equal_rows_are_a_tie_that_goes_to_the_first_clients() -> None:
    assert chosen(torch.ones(10, 60), elected=0.2) == [0, 1]
    assert chosen(torch.zeros(10, 60), elected=0.2) == [0, 1]


@pytest.mark.parametrize("stage", ["", "+model_replacement(strength=3)", "+neurotoxin"])
def test_it_keeps_out_most_of_the_backdoor_that_fedavg_takes_in(stage: str) -> None:
    attack = f"badnets(share=0.2){stage}"
    undefended, defended = figures(attack), figures(attack, defense="snowball(elected=0.3)")
    assert undefended["final/attack_success_rate"] > 0.7
    assert defended["final/attack_success_rate"] < 0.3
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.02


def test_one_elected_row_of_ten_learns_less_than_three() -> None:
    """So it is without the second election, which takes in half of all rows."""
    one, three = (
        figures("badnets(share=0.2)", defense=f"snowball(elected={share})") for share in (0.1, 0.3)
    )
    assert one["final/clean_accuracy"] < three["final/clean_accuracy"] - 0.02
