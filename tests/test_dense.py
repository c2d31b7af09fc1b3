"""Gradients by hand: those of autograd, one client's the same beside any others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from backstop.platform.contract import Attack, Part, Spec
from backstop.platform.specs.spec import validate
from backstop.platform.training import dense, federation, loading, local_sgd, network
from backstop.platform.training.dropout import Dropout
from backstop.platform.training.federation import Federation

TABLE = Spec(
    dataset=Part("synthetic", {"samples": 1200, "features": 30, "classes": 2}),
    model=Part("mlp", {"hidden": "128-256"}),
    clients=20,
    per_round=20,
    batch=64,
    optimizer=Part("sgd", {"lr": 0.02, "momentum": 0.5}),
    root_size=0,
)


def built(spec: Spec) -> Federation:
    spec = validate(spec)
    data = loading.load_dataset(spec.dataset, Path("unused"))
    return federation.build_federation(spec, data, torch.device("cpu"))


def under_vmap(fed: Federation) -> Federation:
    return fed._replace(net=fed.net._replace(dense=None))


def one_by_one(fed: Federation) -> Federation:
    return fed._replace(net=fed.net._replace(dense=None, vectorized=False))


def rows(fed: Federation, cohort: list[int]) -> Tensor:
    start = fed.net.params, fed.net.buffers
    return local_sgd.train(fed, 1, cohort, *start, None, attacked=False).rows


def network_of(*layers: nn.Module) -> tuple[nn.Sequential, dense.Dense | None, Tensor]:
    module = nn.Sequential(*layers)
    layout = network._layout(list(module.named_parameters()))
    params = torch.cat([value.detach().flatten() for value in module.parameters()])
    return module, dense.read_dense(module, layout), params


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model": Part("logistic")},
        {"model": Part("mlp", {"hidden": "12-7-9", "dropout": 0.3})},
        {"model": Part("mlp", {"hidden": 16, "class_weights": "16-1"})},
        {"optimizer": Part("adam", {"lr": 0.001}), "local_epochs": 2},
        {"dataset": Part("digits"), "batch": 16},
    ],
    ids=["mlp", "logistic", "dropout", "class weights", "adam", "images"],
)
def test_all_three_engines_train_alike(change: dict[str, object]) -> None:
    fed = built(TABLE.replace(**change))
    assert fed.net.dense
    by_hand = rows(fed, list(range(20)))
    assert by_hand.norm(dim=1).min() > 0.002
    for other in (under_vmap(fed), one_by_one(fed)):
        torch.testing.assert_close(by_hand, rows(other, list(range(20))), rtol=2e-3, atol=2e-5)


def test_the_gradient_is_that_of_autograd_in_double_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    dropout = Dropout(0.4, 1)
    module, known, params = network_of(
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.ReLU(),
        dropout,
        nn.Linear(5, 4),
        nn.ReLU(),
        nn.Linear(4, 3),
    )
    module = module.double().train()
    vectors = params.double() + 0.3 * torch.randn(4, len(params), generator=generator).double()
    counts = [40, 33, 9, 1]
    x = torch.randn(4, 48, 6, generator=generator).double()
    y = torch.randint(3, (4, 48), generator=generator)
    weight = torch.rand(4, 48, generator=generator).double() + 0.1
    for row, count in enumerate(counts):
        weight[row, count:] = 0
    keys = torch.tensor([3, 1, 4, 15])
    assert known
    gradients = dense.Gradients(known, known.widen(vectors))
    losses, wide = gradients(dense.Batch(x, y, weight), counts, keys)
    grad = known.narrow(wide)
    assert wide.count_nonzero() == grad.count_nonzero(), "what lies between the tensors stays 0"
    for row, count in enumerate(counts):
        own = vectors[row].clone().requires_grad_()
        tensors = network.split(own, network._layout(list(module.named_parameters())))
        logits = functional_call(module, tensors | {"3.key": keys[row]}, (x[row, :count],))
        each = cross_entropy(logits, y[row, :count], reduction="none")
        share = weight[row, :count] / weight[row, :count].sum()
        loss = (each * share).sum()
        (expected,) = torch.autograd.grad(loss, own)
        torch.testing.assert_close(losses[row], loss.detach())
        torch.testing.assert_close(grad[row], expected)


@pytest.mark.parametrize("batch", [1, 16, 50, 64])
@pytest.mark.parametrize("hidden", ["3", "64", "128-256", "200-17-33"])
def test_a_row_has_the_same_bits_beside_any_others(hidden: str, batch: int) -> None:
    fed = built(TABLE.replace(model=Part("mlp", {"hidden": hidden}), batch=batch))
    together = rows(fed, list(range(20)))
    assert together.isfinite().all()
    backwards = rows(fed, list(range(19, -1, -1)))
    assert torch.equal(backwards.flip(0), together)
    for client in (0, 7, 19):
        assert torch.equal(rows(fed, [client])[0], together[client])
    for count in (2, 3, 5, 13):
        assert torch.equal(rows(fed, list(range(count))), together[:count])


@pytest.mark.parametrize("dim", [3, 16, 25])
def test_neither_does_a_row_under_vmap(dim: int) -> None:
    spec = TABLE.replace(
        dataset=Part("topics"), model=Part("bag_of_words", {"dim": dim}), alpha=None, batch=16
    )
    fed = built(spec)
    assert fed.net.vectorized == (dim == 16)
    assert not fed.net.dense
    together = rows(fed, list(range(20)))
    for client in (0, 7, 19):
        assert torch.equal(rows(fed, [client])[0], together[client])


def test_an_attack_that_adds_to_the_loss_is_trained_by_autograd() -> None:
    """Its extra loss moves the attackers' rows, and nobody else's."""
    fed = built(TABLE.replace(attack=(Part("feature_value"),), malicious=0.2, local_epochs=3))
    start = fed.net.params, fed.net.buffers
    cohort = list(range(20))

    def trained(attack: Attack) -> Tensor:
        there = fed._replace(attack=attack)
        sheet = local_sgd.Sheet(cohort, *start)
        for unit in local_sgd.blocks(there, 1, cohort, attacked=True):
            local_sgd.train(there, 1, unit, *start, None, attacked=True, sheet=sheet)
        return sheet.trained.rows

    malicious = torch.isin(torch.arange(20), fed.malicious)
    pulled = trained(Attack(objective=lambda _, delta, *__: 5 * delta.norm()))
    free = trained(Attack(objective=lambda _, delta, *__: 0 * delta.sum()))
    assert torch.equal(pulled[~malicious], free[~malicious])
    assert (pulled[malicious].norm(dim=1) < 0.9 * free[malicious].norm(dim=1)).all()


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)],
        [nn.Linear(3, 2), nn.ReLU()],
        [nn.Linear(3, 4), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False)],
        [nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)],
    ],
)
def test_other_models_are_left_to_autograd(layers: list[nn.Module]) -> None:
    assert network_of(*layers)[1] is None


def test_by_hand_only_in_float32_on_a_cpu() -> None:
    assert built(TABLE).net.dense
    assert not built(TABLE.replace(precision="bfloat16")).net.dense
    fed = built(TABLE)
    module = fed.net.module
    assert network._dense(module, fed.net.layout, torch.device("cuda"), "float32") is None
