from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score
from torch import Tensor

from backstop.defenses.snowball import _INPUTS, _clusters, _seen, _separation, snowball
from backstop.platform import robust
from backstop.platform.contract import Slot, Updates
from backstop.platform.remedies import variational
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
QUICK = "snowball(epochs=90)"
VOTING = (LAYOUT[0].span, LAYOUT[3].span)


def noise(n: int, d: int = 60, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def chosen(rows: Tensor, *, round_index: int = 0, **params: float) -> list[int]:
    """The rows that are kept, by the first election alone unless ``joined`` says otherwise; of the
    autoencoder's passes a tenth.
    """
    view = replace(server_view(60, round_index), layout=LAYOUT)
    given = {"joined": 0.0, "epochs": 27, **params}
    after: Updates = snowball(**given).apply(uneven(rows), None, view)[0]  # type: ignore[arg-type]
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("far", [0.0, 0.2, 1.0])
def test_agrees_with_the_reference(n: int, far: float) -> None:
    rows = noise(n)
    rows[n // 2] = rows[0]
    rows[-1] = 0.0
    for elected, joined in ((0.1, 0.0), (0.5, 0.0), (0.1, 0.5), (0.3, 0.9)):
        draws = server_view(60).generator
        wanted = twin.chosen(rows.double().numpy(), VOTING, elected, far, joined, 0.1, 9, 8, draws)
        found = chosen(rows, elected=elected, far=far, joined=joined, step=0.1, epochs=9, hidden=8)
        assert found == wanted


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
    assert len(chosen(noise(n), elected=elected)) == count


def test_equal_rows_are_a_tie_that_goes_to_the_first_clients() -> None:
    assert chosen(torch.ones(10, 60), elected=0.2) == [0, 1]
    assert chosen(torch.zeros(10, 60), elected=0.2) == [0, 1]


def test_half_of_all_rows_are_in_after_the_second_election() -> None:
    rows = noise(20)
    first, both = set(chosen(rows, elected=0.2)), set(chosen(rows, elected=0.2, joined=0.5))
    assert first < both and len(both) == 10
    assert chosen(rows, elected=0.5, joined=0.5) == chosen(rows, elected=0.5)


def test_the_second_election_begins_after_some_rounds() -> None:
    rows = noise(12)
    assert len(chosen(rows, round_index=4, joined=0.5, after=5)) == 2
    assert len(chosen(rows, round_index=5, joined=0.5, after=5)) == 6


def test_one_row_has_no_differences_so_that_two_begin() -> None:
    rows = noise(10)
    pair = set(chosen(rows, elected=0.2))
    assert len(pair) == 2
    assert pair < set(chosen(rows, elected=0.1, joined=0.5))


def test_what_joins_is_like_the_elected() -> None:
    """Rows of three kinds: those of the elected kind come first."""
    rows = 0.05 * noise(18)
    rows[6:12] += 2.0
    rows[12:] -= 2.0
    kept = set(chosen(rows, elected=0.15, joined=0.35))
    assert len(kept) == 6
    assert kept in (set(range(6)), set(range(6, 12)), set(range(12, 18)))


def test_long_layers_are_thinned_evenly() -> None:
    rows = torch.arange(3 * _INPUTS).float().expand(2, -1)
    seen = _seen(rows, [Slot("first", 0, (_INPUTS,)), Slot("last", _INPUTS, (2 * _INPUTS,))])
    assert torch.equal(seen[0], torch.arange(_INPUTS).double() * 3)
    assert _seen(rows, [Slot("first", 0, (7,))]).shape == (2, 7)


def test_the_gradient_is_that_of_the_loss() -> None:
    draws = generator(0, "tests", "autoencoder")
    network = variational.untrained(6, 8, 2, draws)
    x = torch.rand(5, 6, generator=draws, dtype=torch.float64)
    noise = torch.randn(5, 2, generator=draws, dtype=torch.float64)
    grad = torch.empty_like(network.weights)
    variational.fill_gradient(network, x, noise, grad)
    leaf = network.weights.clone().requires_grad_()
    parts = network.parts(leaf)
    mean, spread = variational._encoded(parts, x)
    seen = variational._decoded(parts, mean + (spread / 2).exp() * noise)
    divergence = -(1 + spread - mean**2 - spread.exp()).sum() / 2
    ((seen - x).square().sum() + divergence).backward()
    torch.testing.assert_close(grad, leaf.grad, rtol=0, atol=1e-12)


def test_training_is_that_of_the_reference() -> None:
    x = torch.rand(11, 6, generator=generator(0, "tests", "autoencoder"), dtype=torch.float64)
    before = variational.untrained(6, 8, 2, generator(1, "tests", "autoencoder"))
    after = variational.trained(before, x, 3, generator(2, "tests", "autoencoder"))
    slow = twin.Autoencoder(6, 8, 2, generator(1, "tests", "autoencoder"))
    slow.draws = generator(2, "tests", "autoencoder")
    slow.train(list(x.numpy()), 3)
    wanted = torch.cat([torch.from_numpy(part).flatten() for part in slow.parts])
    torch.testing.assert_close(after.weights, wanted, rtol=0, atol=1e-9)


LOUDER = ("+model_replacement(strength=3)", "+neurotoxin")


@pytest.mark.parametrize(
    "stage", ["", *(pytest.param(stage, marks=pytest.mark.slow) for stage in LOUDER)]
)
def test_it_keeps_out_the_backdoor_that_fedavg_takes_in(stage: str) -> None:
    attack = f"badnets(share=0.2){stage}"
    undefended, defended = figures(attack), figures(attack, defense=QUICK)
    assert undefended["final/attack_success_rate"] > 0.7
    assert defended["final/attack_success_rate"] < 0.2
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.03


def test_the_first_election_alone_learns_less() -> None:
    """One row of ten in a round, where half of all are in after the second."""
    attack = "badnets(share=0.2)"
    first, both = (figures(attack, defense=name) for name in ("snowball(joined=0)", QUICK))
    assert first["final/clean_accuracy"] < both["final/clean_accuracy"] - 0.04
