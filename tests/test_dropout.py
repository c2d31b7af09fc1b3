"""Dropout by key: the hash against a slow reference, the share that is dropped, and equal masks in
both engines.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from backstop.platform import seeds
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.specs.spec import validate
from backstop.platform.training import federation, loading, local_sgd
from backstop.platform.training.dropout import Dropout, _draw
from backstop.platform.training.federation import Federation

MASK = 2**64 - 1
TINY = Spec(
    clients=12,
    per_round=6,
    malicious=0.34,
    rounds=2,
    batch=8,
    block=4,
    root_size=20,
    local_epochs=2,
    model=Part("mlp", {"hidden": "16-12", "dropout": 0.4}),
    optimizer=Part("sgd", {"lr": 0.1}),
)


def reference(counter: int) -> int:
    """SplitMix64's output for a state, with Python's own integers."""
    z = counter * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return (z ^ z >> 31) >> 11


def layer(share: float, key: int, number: int = 1) -> Dropout:
    made = Dropout(share, number)
    made.key.fill_(key)
    return made


def test_the_hash_is_split_mix() -> None:
    counters = [0, 1, 2, 12345, 2**62 + 7, 2**63 - 1]
    assert _draw(torch.tensor(counters)).tolist() == [reference(counter) for counter in counters]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_stated_share_is_dropped_and_the_mean_is_kept(share: float) -> None:
    y = layer(share, seeds.stream(0, "dropout", 1, 2, 3))(torch.ones(400, 250))
    dropped = y == 0
    # 100,000 draws: standard error below 0.002
    assert float(dropped.float().mean()) == pytest.approx(share, abs=0.01)
    assert torch.allclose(y[~dropped], torch.tensor(1 / (1 - share)))
    # no row or column is special
    assert (
        float(dropped.float().mean(0).std()) < 0.04 and float(dropped.float().mean(1).std()) < 0.05
    )


def test_keys_layers_and_steps_have_masks_of_their_own() -> None:
    x = torch.ones(50, 20)
    masks = [layer(0.5, key, number)(x) != 0 for key, number in ((1, 1), (2, 1), (1, 2), (2, 2))]
    for one in range(4):
        for other in range(one):
            agree = float((masks[one] == masks[other]).float().mean())
            assert agree == pytest.approx(0.5, abs=0.07)  # 1,000 draws: standard error 0.016


def test_it_does_nothing_in_evaluation_mode() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(layer(0.5, 1).eval()(x), x)


def test_a_mask_does_not_depend_on_later_samples_nor_on_vmap() -> None:
    whole = layer(0.5, 7)(torch.ones(8, 5))
    assert torch.equal(layer(0.5, 7)(torch.ones(3, 5)), whole[:3])
    blank: nn.Module = Dropout(0.5, 1)
    keys = torch.tensor([6, 7])
    both = vmap(lambda key, x: functional_call(blank, {"key": key}, (x,)))(
        keys, torch.ones(2, 8, 5)
    )
    assert torch.equal(both[1], whole) and not torch.equal(both[0], whole)


def built(spec: Spec) -> Federation:
    return federation.build_federation(
        validate(spec), loading.load_dataset(spec.dataset, Path()), torch.device("cpu")
    )


@pytest.mark.parametrize("weights", [None, "3-1-1-1-1-1-1-1-1-0.25"])
def test_both_engines_train_the_same_clients(weights: str | None) -> None:
    spec = TINY.replace(model=Part("mlp", {**TINY.model.params, "class_weights": weights}))
    one = built(spec)
    assert one.net.vectorized
    start, none = one.net.params, one.net.buffers
    block = local_sgd.train(one, 1, [0, 3, 7], start, none, None, attacked=False)
    loop = local_sgd.train(
        one._replace(net=one.net._replace(vectorized=False)),
        1,
        [0, 3, 7],
        start,
        none,
        None,
        attacked=False,
    )
    torch.testing.assert_close(block.rows, loop.rows, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(block.loss, loop.loss, rtol=1e-5, atol=1e-6)
    plain = built(TINY.replace(model=Part("mlp", {"hidden": "16-12"})))
    assert not torch.allclose(
        local_sgd.train(plain, 1, [0, 3, 7], start, none, None, attacked=False).rows,
        block.rows,
        atol=1e-4,
    )


def test_class_weights_are_those_of_torch() -> None:
    """One step of SGD on one batch: the gradient of torch's own weighted cross-entropy."""
    weights = [4.0, 1, 1, 1, 1, 1, 1, 1, 1, 0.5]
    spec = TINY.replace(
        model=Part("mlp", {"hidden": 8, "class_weights": "-".join(map(str, weights))}),
        batch=10**4,
        local_epochs=1,
    )
    one = built(spec)
    row = local_sgd.train(one, 0, [5], one.net.params, one.net.buffers, None, attacked=False).rows[
        0
    ]
    index = one.shards[5]
    params = one.net.params.clone().requires_grad_()
    loss = nn.functional.cross_entropy(
        one.net.logits(params, one.data.train.x[index]),
        one.data.train.y[index],
        weight=torch.tensor(weights),
    )
    (grad,) = torch.autograd.grad(loss, params)
    torch.testing.assert_close(row, -0.1 * grad, rtol=1e-4, atol=1e-6)


def test_an_experiment_with_dropout_repeats_itself_and_evaluates_without() -> None:
    first, second = (list(run(TINY, folder=Path(), device="cpu")) for _ in range(2))
    assert [record.metrics for record in first] == [record.metrics for record in second]
    experiment = Experiment(TINY, Path(), "cpu")
    x = experiment.built.data.test.x[:5]
    assert torch.equal(
        experiment.built.net.logits(experiment.state.params, x),
        experiment.built.net.logits(experiment.state.params, x),
    )
