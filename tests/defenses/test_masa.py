from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.masa import _batches, _unlearned, masa
from backstop.platform.contract import Samples, ServerView, Updates
from backstop.platform.seeds import generator
from tests.arena import figures
from tests.references import masa as twin
from tests.views import server_view, uneven

CLASSES, FEATURES = 3, 5
D = CLASSES * FEATURES


def noise(n: int, d: int = D, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


def view(size: int = 20) -> ServerView:
    """A linear classifier, with a root set of this size that it knows."""
    params, x = noise(1, name="params")[0], noise(size, FEATURES, "inputs")
    labels = (x @ params.reshape(FEATURES, CLASSES)).argmax(1)
    return replace(
        server_view(D),
        params=params,
        model=lambda params, x: x @ params.reshape(FEATURES, CLASSES),
        root=Samples(x, labels),
        classes=CLASSES,
    )


def filtered(rows: Tensor, seen: ServerView | None = None, radius: float = 1.0) -> Updates:
    return masa(radius=radius, batch=8).apply(uneven(rows), None, seen or view())[0]


def kept(after: Updates) -> list[int]:
    return after.weight.nonzero().flatten().tolist()


@pytest.mark.parametrize("lr", [1e-3, 0.3])
def test_the_loss_on_the_way_up_is_that_of_the_reference(lr: float) -> None:
    seen = view()
    epochs = _batches(seen, 4, 8)
    assert [len(batch.y) for batch in epochs[0]] == [8, 8, 4]
    assert not torch.equal(epochs[0][0].y, epochs[1][0].y)
    for start in (seen.params, torch.zeros(D), 20 * noise(1, name="far")[0]):
        wanted = twin.climbed(
            start.double().numpy().reshape(FEATURES, CLASSES),
            [[(x.double().numpy(), y.tolist()) for x, y in batches] for batches in epochs],
            lr,
        )
        assert _unlearned(seen, start, epochs, lr) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 12])
@pytest.mark.parametrize("radius", [0.0, 1.0, 2.0])
def test_agrees_with_the_reference(n: int, radius: float) -> None:
    seen, rows = view(), 0.3 * noise(n)
    rows[n // 2] = rows[0]
    rows[-1] = 0.0
    weight = uneven(rows).weight.double().numpy()
    shared = (weight @ rows.double().numpy()) / weight.sum()
    epochs = [
        [(x.double().numpy(), y.tolist()) for x, y in batches] for batches in _batches(view(), 5, 8)
    ]
    losses = []
    for row in rows.double().numpy():
        start = seen.params.double().numpy() + 0.7 * row + 0.3 * shared
        losses.append(twin.climbed(start.reshape(FEATURES, CLASSES), epochs, 1e-3))
    assert kept(filtered(rows, seen, radius)) == twin.kept(losses, radius)


def test_who_forgets_fast_is_left_out_and_who_forgets_slowly_is_kept() -> None:
    rows = 0.01 * noise(9)
    rows[2] = -view().params  # knows nothing any more
    rows[7] = view().params  # knows it twice as well
    assert 2 not in kept(filtered(rows))
    assert 7 in kept(filtered(rows))


def test_a_loss_that_is_not_finite_is_left_out_and_tells_nothing_about_the_others() -> None:
    rows = 0.01 * noise(6)
    rows[4] = 3e38
    assert 4 not in kept(filtered(rows, radius=1e3))
    assert len(kept(filtered(rows, radius=1e3))) == 5
    assert kept(filtered(torch.full((3, D), 3e38))) == [0, 1, 2]


def test_equal_rows_are_all_kept() -> None:
    assert kept(filtered(torch.ones(5, D))) == list(range(5))
    assert np.isfinite(filtered(torch.zeros(5, D)).rows.numpy()).all()


# a model that knows its task, a root set of 200, and every client in every round, as in the paper
TRAINED = (
    ("warmup", 10),
    ("rounds", 5),
    ("eval_every", 1),
    ("per_round", 20),
    ("root_size", 200),
    ("alpha", None),
)


def test_it_keeps_most_attackers_out_of_a_model_that_knows_its_task() -> None:
    attack = "badnets(share=0.3)"
    undefended, defended = figures(attack, TRAINED), figures(attack, TRAINED, defense="masa")
    assert undefended["final/attack_success_rate"] > 0.35
    assert defended["final/attack_success_rate"] < 0.15
    assert defended["final/true_positive_rate"] > 0.5
    assert defended["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.02


def test_from_the_first_round_on_it_tells_boosted_attackers_alone() -> None:
    """With a root set of 50, of which five steps are made."""
    boosted = "badnets(share=0.2)+model_replacement(strength=3)"
    assert figures(boosted, defense="masa")["final/attack_success_rate"] < 0.1
    plain = figures("badnets(share=0.2)", defense="masa")
    assert plain["final/attack_success_rate"] > 0.5
