"""Local training: both engines against torch.optim on a plain module, and rows that do not depend on their block."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform import federation, flat, local_sgd
from backstop.platform.contract import Part, Spec
from backstop.platform.federation import Federation

MLP = Spec(
    clients=12, per_round=6, batch=16, block=4, alpha=0.3, local_epochs=2, root_size=20, optimizer=Part("sgd", {"lr": 0.1, "momentum": 0.9})
)
CNN = MLP.replace(model=Part("cnn"), local_epochs=1)
BATCH_NORM = MLP.replace(model=Part("resnet18", {"norm": "batch"}), clients=40, batch=32, local_epochs=1)


def built(spec: Spec) -> Federation:
    from backstop.platform import specs

    spec = specs.validate(spec)
    return federation.build(spec, federation.load(spec.dataset, Path("unused")), torch.device("cpu"))


def by_hand(fed: Federation, number: int, client: int) -> tuple[Tensor, Tensor]:
    """The update row and the mean loss of one client, with a plain module and torch.optim."""
    module = copy.deepcopy(fed.net.module).train()
    options = fed.spec.optimizer.params
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[fed.spec.optimizer.name]
    lr = float(options["lr"])  # type: ignore[arg-type]
    optimizer = kind(module.parameters(), lr=lr, **({"momentum": options["momentum"]} if fed.spec.optimizer.name == "sgd" else {}))
    losses, seen = torch.zeros(()), 0
    for index in local_sgd.batches(fed, number, client, attacking=False):
        x, y = fed.data.train.x[index].float() / 255, fed.data.train.y[index]
        mean, std = torch.tensor(fed.data.mean).view(-1, 1, 1), torch.tensor(fed.data.std).view(-1, 1, 1)
        optimizer.zero_grad()
        loss = cross_entropy(module((x - mean) / std), y)
        loss.backward()
        optimizer.step()
        losses, seen = losses + loss.detach() * len(y), seen + len(y)
    after = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    return after - fed.net.params, losses / seen


@pytest.mark.parametrize(
    "spec", [MLP, MLP.replace(optimizer=Part("adam", {"lr": 0.01})), CNN, BATCH_NORM], ids=["mlp", "adam", "cnn", "batch norm"]
)
def test_an_update_is_what_torch_optim_gives(spec: Spec) -> None:
    fed = built(spec)
    cohort = list(range(3))
    trained = local_sgd.train(fed, 1, cohort, fed.net.params, fed.net.buffers, None, attacked=False)
    for row, loss, client in zip(trained.rows, trained.loss, cohort, strict=True):
        expected, mean_loss = by_hand(fed, 1, client)
        assert expected.norm() > 0.01
        torch.testing.assert_close(row, expected, rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(loss, mean_loss, rtol=1e-4, atol=1e-5)


def test_both_engines_agree() -> None:
    fed = built(MLP)
    assert fed.net.vectorised
    looped = fed._replace(net=fed.net._replace(vectorised=False))
    cohort = [0, 3, 5, 7]
    block = local_sgd.train(fed, 2, cohort, fed.net.params, fed.net.buffers, None, attacked=False)
    loop = local_sgd.train(looped, 2, cohort, fed.net.params, fed.net.buffers, None, attacked=False)
    assert block.rows.abs().max() > 0.01
    torch.testing.assert_close(block.rows, loop.rows, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block.loss, loop.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", [MLP, CNN], ids=["vmap", "loop"])
def test_a_row_does_not_depend_on_its_block_mates(spec: Spec) -> None:
    fed = built(spec)

    def row(block: list[int], client: int) -> Tensor:
        trained = local_sgd.train(fed, 0, block, fed.net.params, fed.net.buffers, None, attacked=False)
        return trained.rows[block.index(client)]

    alone = row([5], 5)
    for block in ([5, 1, 2, 3], [9, 8, 5], [11, 5]):
        assert torch.equal(row(block, 5), alone)


def test_blocks_hold_every_client_once_and_waste_little() -> None:
    fed = built(MLP.replace(clients=40, per_round=20, block=5))
    units = local_sgd.blocks(fed, list(range(20)), attacked=False)
    assert sorted(client for unit in units for client in unit) == list(range(20))
    steps = {client: len(local_sgd.batches(fed, 0, client, attacking=False)) for client in range(20)}
    padded = sum(steps[unit[0]] * len(unit) for unit in units)
    unsorted = sum(max(steps[client] for client in range(start, start + 5)) * 5 for start in range(0, 20, 5))
    assert padded <= unsorted
    assert [steps[unit[0]] for unit in units] == sorted((steps[unit[0]] for unit in units), reverse=True)


def test_every_epoch_visits_every_sample_once_in_another_order() -> None:
    fed = built(MLP)
    shard = fed.shards[2]
    found = torch.cat(local_sgd.batches(fed, 4, 2, attacking=False))
    first, second = found[: len(shard)], found[len(shard) :]
    assert torch.equal(first.sort().values, shard)
    assert torch.equal(second.sort().values, shard)
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.cat(local_sgd.batches(fed, 5, 2, attacking=False))[: len(shard)])


def test_batch_norm_statistics_travel_beside_the_parameters() -> None:
    fed = built(BATCH_NORM)
    trained = local_sgd.train(fed, 0, [0, 1], fed.net.params, fed.net.buffers, None, attacked=False)
    assert not fed.net.vectorised
    assert trained.buffers.shape == (2, flat.size(fed.net.buffer_layout))
    assert all("num_batches" not in slot.name for slot in fed.net.buffer_layout)
    assert (trained.buffers.abs().sum(1) > 0).all()


def test_flat_views_are_the_module() -> None:
    fed = built(CNN)
    replica = flat.Replica(fed.net)
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(replica(x), fed.net.logits(fed.net.params, x))
    replica(x).sum().backward()
    assert replica.grad.abs().sum() > 0
    replica.params.zero_()
    assert all((parameter == 0).all() for parameter in replica.module.parameters())
