"""3DFed: what is planted, that the next global model answers, and that answers tune the attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.attacks.threedfed import _tuned, threedfed
from backstop.platform.contract import Attack, AttackView, Slot, Training
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view

CLAIM = Claim(  # measured with seeds 0, 1, 2: 0.71, 0.70, 0.93; weaker 0.56, 0.57, 0.76
    "badnets(share=0.5)+threedfed(scale=5)",
    effect=0.55,
    weaker="badnets(share=0.5)+threedfed(scale=1)",
    bend=0.08,
)

D, SIZES = 24, (4, 6, 8, 10, 12)
M = len(SIZES)
HEAD = (Slot("head.weight", 8, (4, 3)), Slot("head.bias", 20, (4,)))
# of the malicious rows in a plain mean, beside as much honest weight
SHARE = 0.5 * torch.tensor(SIZES)[:, None] / sum(SIZES)


def view_of(params: Tensor | None = None, server_lr: float = 1.0) -> AttackView:
    """The view of clients whose honest updates move nothing where indicators may stand."""
    view = attack_view("table", malicious=M)
    clean = view.unpoisoned()
    clean[:, :8] = 0
    return replace(
        view,
        layout=(Slot("inner.weight", 0, (2, 4)), *HEAD),
        head=HEAD,
        sizes=SIZES,
        share=0.5,
        server_lr=server_lr,
        params=view.params if params is None else params,
        unpoisoned=lambda: clean.clone(),
    )


def first(view: AttackView, mask: float = 0.0) -> Any:
    attack = threedfed(mask=mask)
    assert attack.init is not None and attack.plan is not None
    return attack.plan(attack.init(view), view)


def sent(state: Any, view: AttackView, rows: Tensor | None = None) -> Tensor:
    attack = threedfed(scale=5.0)
    assert attack.craft is not None
    return attack.craft(
        state,
        torch.randn(M, D, generator=generator(0, "tests", "rows")) if rows is None else rows,
        view,
    )


def told(
    state: Any,
    server: Callable[[Tensor], Tensor],
    *,
    mask: float = 0.0,
    server_lr: float = 1.0,
    others: float = 0.0,
    decoys: float = 0.25,
) -> Any:
    """The state before the next attack, where the server adds ``server`` of the malicious rows (m,
    d), and other rounds a little.
    """
    view = view_of(server_lr=server_lr)
    view.params[state.spots] = state.before
    after = view.params + server_lr * server(sent(state, view)) + others * state.norms.mean()
    plan = threedfed(mask=mask, decoys=decoys).plan
    assert plan is not None
    # of another round than those that made the state
    draws = generator(0, "tests", "attack", str(state.alpha))
    return plan(state, replace(view_of(after, server_lr), generator=draws))


def averaged(*taken: float) -> Callable[[Tensor], Tensor]:
    """A server's mean with so much of each malicious row; the cohort's weight stays what it is."""
    return lambda rows: (SHARE * torch.tensor(taken)[:, None] * rows).sum(0)


@pytest.mark.parametrize(
    ("server_lr", "others"), [(1.0, 0.0), (0.5, 0.0), (1.0, 1e-4), (1.0, -1e-4)]
)
def test_a_server_that_averages_accepts_and_nothing_is_tuned(
    server_lr: float, others: float
) -> None:
    before = first(view_of(server_lr=server_lr))
    after = told(before, averaged(1, 1, 1, 1, 1), server_lr=server_lr, others=others)
    assert 0 < after.alpha == before.alpha and after.decoys == 0


def test_one_rejected_client_of_five_is_borne_and_two_are_not() -> None:
    before = first(view_of())
    one, two = told(before, averaged(1, 0, 1, 1, 1)), told(before, averaged(1, 0, 1, 1, 0))
    assert (one.alpha, one.decoys) == (before.alpha, 0)
    assert two.alpha != before.alpha and two.decoys == 0


def test_a_server_that_clips_asks_for_other_masks_but_for_no_decoy() -> None:
    before = first(view_of())
    after = told(before, averaged(0.5, 0.5, 0.5, 0.5, 0.5))
    assert after.alpha not in (before.alpha, 0.1) and after.decoys == 0


def test_a_server_that_rejects_asks_for_decoys_until_one_is_accepted() -> None:
    state = first(view_of())
    for count in (1, 2, 3):
        alpha, state = state.alpha, told(state, averaged(0, 0, 0, 0, 0), decoys=0.8)
        assert state.decoys == count and state.alpha != alpha
    assert told(state, averaged(0, 0, 0, 1, 1), decoys=0.8).decoys == 1
    assert told(state, averaged(1, 0, 0, 0, 0), decoys=0.8).decoys == 3  # what they are for


def test_no_more_than_a_quarter_of_the_rows_are_decoys_and_none_once_that_was_in_vain() -> None:
    """Under coordinate-wise rules what one client sends alone always reads rejected."""
    state = told(first(view_of()), averaged(0, 0, 0, 0, 0))
    assert (state.decoys, state.futile) == (1, False)  # of five rows
    assert told(state, averaged(0, 1, 0, 0, 0)).decoys == 1
    for _ in range(3):
        state = told(state, averaged(0, 0, 0, 0, 0))
        assert (state.decoys, state.futile) == (0, True)
    few = first(attack_view("table", malicious=3))
    plan = threedfed().plan
    assert plan is not None and plan(few, attack_view("table", malicious=3)).decoys == 0


def test_under_noise_the_masks_are_a_tenth_decoys_stay_and_the_next_answer_counts_anew() -> None:
    before = told(first(view_of(), mask=0.3), averaged(0, 0, 0, 0, 0), mask=0.3)
    assert before.decoys == 1
    for wrong in (averaged(1, 1, -1, 1, 1), averaged(1, 1, 30, 1, 1)):
        after = told(before, wrong, mask=0.3)
        assert (after.alpha, after.decoys, after.futile) == (0.1, 1, False)
        again = told(after, averaged(0, 1, 1, 0, 0), mask=0.3)
        assert again.alpha >= 0.3 and again.decoys == 1


@pytest.mark.parametrize("moved", [1 + 5e-4, 1 + 0.019, -0.044])
def test_rounding_and_what_honest_clients_do_there_are_no_noise(moved: float) -> None:
    """A row that is the whole average reads 1 up to float32; honest ones may add their drift."""
    drift = 0.0 if moved == 1 + 5e-4 else 0.02
    state = first(view_of())._replace(
        alpha=0.9,
        spots=torch.tensor([3]),
        planted=torch.tensor([2.0]),
        before=torch.tensor([0.0]),
        expected=torch.tensor([0.05]),
        drift=torch.tensor([drift]),
    )
    params = torch.full((D,), moved * 2.0)
    draws = generator(0, "tests", "tuning")
    assert _tuned(state, params, 1.0, 0.0, 0, draws).alpha != 0.1
    beyond = torch.full((D,), (2 * moved - (1 if moved > 0 else 0)) * 2.0)
    assert _tuned(state, beyond, 1.0, 0.0, 0, draws).alpha == (0.1 if drift else 0.9)


def test_the_answers_are_read_where_they_were_planted() -> None:
    """An answer is the difference to the model before at the coordinate, for each value its own."""
    state = first(view_of())._replace(
        spots=torch.tensor([3, 1]),
        planted=torch.tensor([2.0, 4.0]),
        before=torch.tensor([1.0, -1.0]),
        expected=torch.tensor([0.25, 0.25]),
        drift=torch.zeros(2),
    )
    params = torch.tensor([9.0, -1.0 + 0.25 * 4, 9.0, 1.0 + 0.25 * 2])
    draws = generator(0, "tests", "tuning")
    assert _tuned(state, params, 1.0, 0.0, 1, draws) == state
    assert _tuned(state, params.flip(0), 1.0, 0.0, 1, draws).alpha == 0.1


@pytest.mark.parametrize("decoys", [0, 2])
def test_rows_are_scaled_masked_and_planted(decoys: int) -> None:
    """Number by number, up to the draws of the noise: their weighted sum, size and place are
    stated.
    """
    view, rows = (
        view_of(),
        torch.randn(M, D, generator=generator(1, "tests", "rows"))
        * torch.tensor([[1e-3], [0.1], [1.0], [9.0], [0.2]]),
    )
    state = first(view)
    state = state._replace(
        decoys=decoys, planted=state.norms * torch.tensor([0.1] * (M - decoys) + [10.0] * decoys)
    )
    found, kept = sent(state, view_of(), rows), M - decoys
    clean = view.unpoisoned()
    free = [place for place in range(D) if place not in state.spots.tolist()]
    noise = torch.zeros(kept, D)
    for i in range(M):
        factor = min(max(float(clean[i].norm() / rows[i].norm()), 1.0), 5.0)
        for j in range(M):
            assert found[i, state.spots[j]] == (state.planted[i] if i == j else 0)
        if i < kept:
            noise[i, free] = (found[i] - factor * rows[i])[free]
        else:
            torch.testing.assert_close(found[i, free], clean[i][free])
    assert (noise[:, :8] == 0).all() and (
        noise[:, [place for place in free if place >= 8]] != 0
    ).all()
    torch.testing.assert_close(
        torch.tensor(SIZES[:kept], dtype=torch.float32) @ noise, torch.zeros(D), atol=1e-4, rtol=0
    )


def test_masks_have_the_size_of_alpha() -> None:
    view = view_of()
    # where there is no noise
    state = first(view)._replace(spots=torch.arange(M), planted=torch.zeros(M))
    for alpha in (0.0, 0.25, 1.0):
        noise = sent(state._replace(alpha=alpha), view, torch.zeros(M, D))
        torch.testing.assert_close(noise.norm(dim=1).mean(), alpha * state.norms.mean())


def test_masks_spare_the_rows_of_labels_that_the_poison_gives_and_take_some_of_the_others() -> None:
    def relabel(x: Tensor, y: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return x + (y == 2).float()[:, None], torch.where(y == 2, 1, y)

    view = replace(view_of(), poison=relabel)
    state = first(view)
    assert state.spared.tolist() == [1]
    craft = threedfed(neurons=2).craft
    assert craft is not None
    state = state._replace(spots=torch.arange(M), planted=torch.zeros(M))
    seen = set()
    for number in range(20):
        draws = generator(number, "tests", "neurons")
        noise = craft(state, torch.zeros(M, D), replace(view, generator=draws))
        rows = noise[:, 8:20].view(M, 4, 3).abs().sum((0, 2)).nonzero().flatten().tolist()
        assert len(rows) == 2 and 1 not in rows
        assert noise[:, 20:].abs().sum(0).nonzero().flatten().tolist() == rows  # and their biases
        seen |= set(rows)
    assert seen == {0, 2, 3}


def test_a_poison_that_relabels_nothing_spares_what_its_inputs_are_labeled_with() -> None:
    stamped = replace(view_of(), poison=lambda x, y, index: (x + (y == 3).float()[:, None], y))
    assert first(stamped).spared.tolist() == [3]
    assert first(view_of()).spared.tolist() == []


def test_indicators_stand_where_clean_updates_are_small_and_both_losses_are_flat() -> None:
    """In the last matrix before the head, over all samples of the clients, clean and poisoned."""

    def curved(params: Tensor, x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ params[:24].view(6, 4))
        return torch.tanh(hidden @ params[24:64].view(4, 10)) @ params[64:].view(10, 4)

    d, layer = 104, slice(24, 64)
    inner = (Slot("a.weight", 0, (4, 6)), Slot("b.weight", 24, (10, 4)))
    layout = (*inner, Slot("c.weight", 64, (4, 10)))
    clean = torch.randn(3, d, generator=generator(0, "tests", "clean"))
    view = replace(
        attack_view("table", d=d, malicious=3),
        model=curved,
        layout=layout,
        head=layout[2:],
        unpoisoned=lambda: clean.clone(),
        poison=lambda x, y, index: (x * 2 + index, y * 0),
    )
    state = first(view)

    def loss(params: Tensor) -> Tensor:
        parts = []
        for index in range(3):
            x, y = view.own(index)
            parts += [cross_entropy(curved(params, x), y)]
            parts += [cross_entropy(curved(params, x * 2 + index), y * 0)]
        return torch.stack(parts).sum()

    hessian = torch.autograd.functional.hessian(loss, view.params)
    assert isinstance(hessian, Tensor)
    size, curvature = clean.abs().sum(0), hessian[layer, layer].sum(0).abs()
    smallest = sorted(range(24, 64), key=lambda place: float(size[place]))
    candidates = smallest[:30]  # ten for each client
    flattest = sorted(candidates, key=lambda place: float(curvature[place - 24]))[:3]
    assert state.spots.tolist() == flattest
    torch.testing.assert_close(state.planted, 0.1 * clean.norm(dim=1))
    torch.testing.assert_close(state.before, view.params[flattest])
    torch.testing.assert_close(state.drift, clean[:, flattest].abs().amax(0) / state.planted)


def test_of_layers_the_last_convolution_is_taken() -> None:
    kernels, dense = Slot("b.weight", 3, (2, 1, 1, 3)), Slot("c.weight", 9, (2, 3))
    layout = (Slot("a.weight", 0, (1, 1, 1, 3)), kernels, dense, Slot("d.weight", 15, (4, 2)))
    view = replace(attack_view("table", malicious=2), layout=layout, head=layout[3:])
    assert set(first(view).spots.tolist()) <= set(range(3, 9))
    flat = replace(view, layout=layout[2:])
    assert set(first(flat).spots.tolist()) <= set(range(9, 15))


def test_attackers_train_fifteen_epochs_as_published() -> None:
    assert threedfed().training == Training(epochs=15)
    assert threedfed(epochs=None).training is None


def test_the_constraint_is_the_distance_to_the_global_model() -> None:
    attack: Attack = threedfed(constraint=0.5)  # of any state: the objective does not read it
    assert attack.objective is not None
    none, delta = torch.zeros(0), torch.tensor([3.0, 4.0], requires_grad=True)
    value = attack.objective(None, delta, none, none, none)
    (grad,) = torch.autograd.grad(value, delta)
    assert value == 2.5 and torch.allclose(grad, torch.tensor([0.3, 0.4]))
    still = torch.zeros(2, requires_grad=True)
    assert torch.autograd.grad(attack.objective(None, still, none, none, none), still)[
        0
    ].tolist() == [0.0, 0.0]
