"""Local training: both engines against torch.optim on a plain module, and rows that do not depend
on their block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.platform.contract import (
    Attack,
    ClientView,
    Data,
    Defense,
    Local,
    Memory,
    Part,
    Samples,
    Spec,
    Step,
    TrainView,
)
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.specs.part import parse_part, to_chain
from backstop.platform.specs.spec import validate
from backstop.platform.threats.backdoor import Planted
from backstop.platform.training import dense, federation, loading, local_sgd, local_steps, network
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.federation import Federation

MLP = Spec(
    clients=12,
    per_round=6,
    batch=16,
    block=4,
    alpha=0.3,
    local_epochs=2,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.1, "momentum": 0.9}),
)
CNN = MLP.replace(model=Part("cnn"), local_epochs=1)
BATCH_NORM = MLP.replace(
    model=Part("resnet18", {"norm": "batch"}), clients=40, batch=32, local_epochs=1
)


def built(spec: Spec) -> Federation:
    from backstop.platform.specs.spec import validate

    spec = validate(spec)
    return federation.build_federation(
        spec, loading.load_dataset(spec.dataset, Path("unused")), torch.device("cpu")
    )


def by_hand(fed: Federation, number: int, client: int) -> tuple[Tensor, Tensor]:
    """The update row and the mean loss of one client, with a plain module and torch.optim."""
    module = copy.deepcopy(fed.net.module).train()
    options = fed.spec.optimizer.params
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[fed.spec.optimizer.name]
    lr = float(options["lr"])  # type: ignore[arg-type]
    optimizer = kind(
        module.parameters(),
        lr=lr,
        **({"momentum": options["momentum"]} if fed.spec.optimizer.name == "sgd" else {}),
    )
    losses, seen = torch.zeros(()), 0
    for index in local_steps.plan_steps(fed, number, client, attacking=False).batches:
        x, y = fed.data.train.x[index].float() / 255, fed.data.train.y[index]
        mean, std = (
            torch.tensor(fed.data.mean).view(-1, 1, 1),
            torch.tensor(fed.data.std).view(-1, 1, 1),
        )
        optimizer.zero_grad()
        loss = cross_entropy(module((x - mean) / std), y)
        loss.backward()
        optimizer.step()
        losses, seen = losses + loss.detach() * len(y), seen + len(y)
    after = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    return after - fed.net.params, losses / seen


@pytest.mark.parametrize(
    "spec",
    [MLP, MLP.replace(optimizer=Part("adam", {"lr": 0.01})), CNN, BATCH_NORM],
    ids=["mlp", "adam", "cnn", "batch norm"],
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
    assert fed.net.vectorized
    looped = fed._replace(net=fed.net._replace(vectorized=False))
    cohort = [0, 3, 5, 7]
    block = local_sgd.train(fed, 2, cohort, fed.net.params, fed.net.buffers, None, attacked=False)
    loop = local_sgd.train(looped, 2, cohort, fed.net.params, fed.net.buffers, None, attacked=False)
    assert block.rows.abs().max() > 0.01
    torch.testing.assert_close(block.rows, loop.rows, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block.loss, loop.loss, rtol=1e-4, atol=1e-5)


def test_both_engines_agree_in_bfloat16() -> None:
    """As closely as bfloat16 can: sums are rounded to 8 bits in another order."""
    fed = built(MLP.replace(precision="bfloat16"))
    looped = fed._replace(net=fed.net._replace(vectorized=False))
    cohort = [0, 3, 5, 7]
    block = local_sgd.train(fed, 2, cohort, fed.net.params, fed.net.buffers, None, attacked=False)
    loop = local_sgd.train(looped, 2, cohort, fed.net.params, fed.net.buffers, None, attacked=False)
    apart = (block.rows - loop.rows).norm(dim=1) / loop.rows.norm(dim=1)
    assert apart.max() < 0.03
    torch.testing.assert_close(block.loss, loop.loss, rtol=0.01, atol=0.001)


@pytest.mark.parametrize(
    "spec",
    [MLP, CNN, MLP.replace(precision="bfloat16"), CNN.replace(precision="bfloat16")],
    ids=["vmap", "loop", "vmap in bfloat16", "loop in bfloat16"],
)
def test_a_row_does_not_depend_on_its_block_mates(spec: Spec) -> None:
    fed = built(spec)

    def row(block: list[int], client: int) -> Tensor:
        trained = local_sgd.train(
            fed, 0, block, fed.net.params, fed.net.buffers, None, attacked=False
        )
        return trained.rows[block.index(client)]

    alone = row([5], 5)
    for block in ([5, 1, 2, 3], [9, 8, 5], [11, 5]):
        assert torch.equal(row(block, 5), alone)


def test_blocks_hold_every_client_once_and_waste_little() -> None:
    fed = built(MLP.replace(clients=40, per_round=20, block=5))
    units = local_sgd.blocks(fed, 0, list(range(20)), attacked=False)
    assert sorted(client for unit in units for client in unit) == list(range(20))
    steps = {
        client: len(local_steps.plan_steps(fed, 0, client, attacking=False).batches)
        for client in range(20)
    }
    padded = sum(steps[unit[0]] * len(unit) for unit in units)
    unsorted = sum(
        max(steps[client] for client in range(start, start + 5)) * 5 for start in range(0, 20, 5)
    )
    assert padded <= unsorted
    assert [steps[unit[0]] for unit in units] == sorted(
        (steps[unit[0]] for unit in units), reverse=True
    )


def test_every_thread_has_as_many_blocks_where_gradients_are_by_hand() -> None:
    fed = built(MLP.replace(clients=40, per_round=20, block=7))
    by_autograd = fed._replace(net=fed.net._replace(dense=None))
    cohort = list(range(20))

    def sizes(there: Federation, threads: int) -> list[int]:
        units = local_sgd.blocks(there, 0, cohort, attacked=False, threads=threads)
        assert sorted(client for unit in units for client in unit) == cohort
        assert max(map(len, units)) <= 7
        return [len(unit) for unit in units]

    assert sizes(by_autograd, 2) == [7, 7, 6]
    assert list(map(len, map(partial(sizes, fed), (1, 2, 3)))) == [3, 4, 3]


def test_threads_have_equally_much_to_do_where_gradients_are_by_hand() -> None:
    """The half of the clients that has the most samples would be three quarters of the steps."""
    fed = built(MLP.replace(clients=40, per_round=20, block=20, batch=4))
    long, short = local_sgd.blocks(fed, 0, list(range(20)), attacked=False, threads=2)

    def steps(clients: list[int]) -> int:
        return sum(len(local_steps.plan_steps(fed, 0, one, False).sizes) for one in clients)

    assert len(long) < 10 < len(short)
    assert 0.8 < steps(long) / steps(short) < 1.5


def test_larger_caches_make_wider_blocks_of_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Part("mlp", {"hidden": "128-256"})
    fed = built(MLP.replace(model=model, clients=20, per_round=20, block=20))
    cohort = list(range(20))

    def trained(size: str) -> tuple[list[int], Tensor]:
        monkeypatch.setattr(dense, "LEVEL_2", tmp_path / "size")
        dense.LEVEL_2.write_text(f"{size}\n")
        dense.cached_here.cache_clear()
        sheet = local_sgd.Sheet(cohort, fed.net.params, fed.net.buffers)
        units = local_sgd.blocks(fed, 0, cohort, attacked=False)
        for unit in units:
            here = (fed.net.params, fed.net.buffers)
            local_sgd.train(fed, 0, unit, *here, None, attacked=False, sheet=sheet)
        return list(map(len, units)), sheet.trained.rows

    try:
        by_size = {size: trained(size) for size in ("512K", "1024K", "2048K", "4M")}
    finally:
        dense.cached_here.cache_clear()
    assert {size: units for size, (units, _) in by_size.items()} == {
        "512K": [5, 5, 5, 5],
        "1024K": [5, 5, 5, 5],
        "2048K": [10, 10],
        "4M": [5, 5, 5, 5],
    }
    assert torch.equal(by_size["512K"][1], by_size["2048K"][1])


def test_every_epoch_visits_every_sample_once_in_another_order() -> None:
    fed = built(MLP)
    shard = fed.shards[2]
    found = torch.cat(local_steps.plan_steps(fed, 4, 2, attacking=False).batches)
    first, second = found[: len(shard)], found[len(shard) :]
    assert torch.equal(first.sort().values, shard)
    assert torch.equal(second.sort().values, shard)
    assert not torch.equal(first, second)
    assert not torch.equal(
        first, torch.cat(local_steps.plan_steps(fed, 5, 2, attacking=False).batches)[: len(shard)]
    )


def test_batch_norm_statistics_travel_beside_the_parameters() -> None:
    fed = built(BATCH_NORM)
    trained = local_sgd.train(fed, 0, [0, 1], fed.net.params, fed.net.buffers, None, attacked=False)
    assert not fed.net.vectorized
    assert trained.buffers.shape == (2, network.size(fed.net.buffer_layout))
    assert all("num_batches" not in slot.name for slot in fed.net.buffer_layout)
    assert (trained.buffers.abs().sum(1) > 0).all()


def test_flat_views_are_the_module() -> None:
    fed = built(CNN)
    replica = network.Replica(fed.net)
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(replica(x), fed.net.logits(fed.net.params, x))
    replica(x).sum().backward()
    assert replica.grad.abs().sum() > 0
    replica.params.zero_()
    assert all((parameter == 0).all() for parameter in replica.module.parameters())


def strict() -> Local:
    """A rule that touches everything: what a client prepares, its batches, its gradients, noise."""

    def prepare(view: ClientView) -> float:
        assert len(view.data.y) and view.model(view.params, view.data.x).shape == (
            len(view.data.y),
            view.classes,
        )
        return view.data.x.mean().item()

    def batch(memory: float, x: Tensor, y: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        return (x * memory + torch.rand(x.shape, generator=draws)).clamp(0, 1), y

    def gradient(grad: Tensor, delta: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        return grad + 0.1 * delta + 0.01 * noise()

    return Local(prepare, batch, gradient)


def rows_under(
    fed: Federation, defense: Defense, cohort: list[int], *, attacked: bool = False
) -> Tensor:
    fed = fed._replace(defense=defense)
    units = local_sgd.blocks(fed, 2, cohort, attacked)
    state = (Planted(10),)  # of badnets, where there is an attack
    start = fed.net.params, fed.net.buffers
    sheet = local_sgd.Sheet(cohort, *start)
    for unit in units:
        local_sgd.train(fed, 2, unit, *start, state, attacked, sheet)
    return sheet.trained.rows


def test_both_engines_follow_the_defenses_rules() -> None:
    fed = built(MLP)
    looped = fed._replace(net=fed.net._replace(vectorized=False))
    cohort, defense = (
        [0, 3, 5, 7, 9],
        chain(Defense(local=strict()), Defense(local=Local(gradient=lambda grad, *_: grad / 2))),
    )
    block = rows_under(fed, defense, cohort)
    assert (block - rows_under(fed, Defense(), cohort)).abs().max() > 0.01
    torch.testing.assert_close(block, rows_under(looped, defense, cohort), rtol=1e-3, atol=1e-5)
    alone = torch.cat([rows_under(fed, defense, [client]) for client in cohort])
    assert torch.equal(alone, block)


def test_a_sample_that_batch_norm_cannot_be_trained_on_alone_joins_the_step_before() -> None:
    """8 x 8 digits end as 1 x 1: of one sample the last layers have one value a channel."""
    fed = built(BATCH_NORM)
    client = next(number for number, shard in enumerate(fed.shards) if len(shard) % 32 == 1)
    plan = local_steps.plan_steps(fed, 0, client, attacking=False).batches
    assert [len(piece) for piece in plan] == [32] * (len(fed.shards[client]) // 32 - 1) + [33]
    assert torch.equal(torch.cat(plan).sort().values, fed.shards[client])
    expected, _ = by_hand(fed, 0, client)

    def row(block: list[int]) -> Tensor:
        trained = local_sgd.train(
            fed, 0, block, fed.net.params, fed.net.buffers, None, attacked=False
        )
        return trained.rows[block.index(client)]

    alone = row([client])
    torch.testing.assert_close(alone, expected, rtol=1e-3, atol=2e-5)
    assert torch.equal(row([0, client]), alone)
    root = Samples(network.to_unit_interval(fed.data.train.x[:33]), fed.data.train.y[:33])
    update = local_sgd.train_samples(fed, 0, fed.net.params, fed.net.buffers, root)
    assert update.isfinite().all() and update.abs().max() > 0


def test_a_single_last_sample_stays_a_step_of_its_own_where_it_can() -> None:
    spec = BATCH_NORM.replace(dataset=Part("patches"), clients=20, batch=8)
    for model in (Part("cnn"), Part("resnet18", {"norm": "batch"})):
        fed = built(spec.replace(model=model))
        assert not fed.net.pairs, "32 x 32 pixels end as 4 x 4"
        client = next(number for number, shard in enumerate(fed.shards) if len(shard) % 8 == 1)
        assert len(local_steps.plan_steps(fed, 0, client, attacking=False).batches[-1]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 1}, "batch=1, .* set batch to 2 or more"),
        ({"clients": 80}, "client 75 has one sample, .* take fewer clients"),
        (
            {"root_size": 1, "defense": (Part("fltrust"),)},
            "root_size=1 with fltrust, .* set root_size to 2",
        ),
    ],
)
def test_training_of_batch_norm_on_one_sample_is_refused_before_the_start(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        built(BATCH_NORM.replace(**changes))
    built(BATCH_NORM.replace(model=Part("resnet18"), **changes))


@pytest.mark.parametrize("running", [True, False])
def test_batch_norm_trains_in_a_loop_on_every_device(running: bool) -> None:
    """With running averages and without: the padding of a block would enter the statistics."""
    norm = torch.nn.BatchNorm1d(4, track_running_stats=running)
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), norm, torch.nn.Linear(4, 2))
    for kind in ("cpu", "cuda"):
        assert not network.vectorized(module, torch.device(kind), 8)
    rows = Samples(torch.rand(3, 4), torch.tensor([0, 1, 1]))
    net = network.network(module, Data(rows, rows, 2, "table"), torch.device("cpu"), 8)
    assert net.pairs


@pytest.mark.parametrize("vectorized", [True, False])
def test_clients_that_attack_do_not_follow_the_defenses_rules(vectorized: bool) -> None:
    fed = built(MLP.replace(attack=(Part("badnets"),), malicious=0.34))
    fed = fed._replace(net=fed.net._replace(vectorized=vectorized))
    cohort, defense = list(range(12)), Defense(local=strict())
    bad = torch.isin(torch.arange(12), fed.malicious)
    free, bound = (rows_under(fed, one, cohort, attacked=True) for one in (Defense(), defense))
    torch.testing.assert_close(bound[bad], free[bad], rtol=1e-4, atol=1e-6)
    assert ((bound - free).abs().amax(1) > 1e-3).tolist() == (~bad).tolist()
    idle = rows_under(fed, defense, cohort)
    # while they do not attack, they do
    assert ((idle - rows_under(fed, Defense(), cohort)).abs().amax(1) > 1e-3).all()


def test_a_training_of_ones_own_takes_its_steps_at_a_factor_on_the_honest_rate() -> None:
    """Plain gradient descent on a linear loss moves by the sum of its rates."""

    def moved(rates: list[float] | None) -> Tensor:
        def train(_: object, view: TrainView) -> Tensor:
            steps = view.steps[:1] * 3
            return (
                view.minimise(lambda params, _: params.sum(), steps=steps, rates=rates)
                - view.params
            )

        fed = built(
            MLP.replace(
                attack=(Part("badnets"),), malicious=0.34, optimizer=Part("sgd", {"lr": 0.1})
            )
        )
        fed = fed._replace(attack=Attack(train=train))
        attacker = [int(fed.malicious[0])]
        return local_sgd.train(
            fed, 0, attacker, fed.net.params, fed.net.buffers, None, attacked=True
        ).rows[0]

    whole = torch.full_like(moved(None), -0.3)
    torch.testing.assert_close(moved(None), whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(moved([1.0, 0.5, 0.0]), whole / 2, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="zip"):
        moved([1.0])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_memory_carries_the_momentum_from_one_training_to_the_next(optimizer: str) -> None:
    def moved(parts: list[int], kept: bool) -> Tensor:
        """So many steps in each call, with one memory for all of them or none."""

        def train(_: object, view: TrainView) -> Tensor:
            params, memory = view.params, Memory() if kept else None
            for part in parts:
                steps = view.steps[:1] * part
                params = view.minimise(_loss, params, steps, memory=memory)
            return params - view.params

        def _loss(params: Tensor, step: Step) -> Tensor:
            return (params.square() * 3).sum()

        part = Part(optimizer, {"lr": 0.1, "momentum": 0.9} if optimizer == "sgd" else {"lr": 0.1})
        fed = built(MLP.replace(attack=(Part("badnets"),), malicious=0.34, optimizer=part))
        fed = fed._replace(attack=Attack(train=train))
        attacker = [int(fed.malicious[0])]
        return local_sgd.train(
            fed, 0, attacker, fed.net.params, fed.net.buffers, None, attacked=True
        ).rows[0]

    whole = moved([5], kept=False)
    assert torch.equal(moved([2, 1, 2], kept=True), whole)
    assert not torch.allclose(moved([2, 1, 2], kept=False), whole)


@pytest.mark.parametrize("vectorized", [True, False])
def test_the_pace_of_an_attack_is_a_factor_on_the_rate_of_those_who_attack(
    vectorized: bool,
) -> None:
    fed = built(MLP.replace(attack=(Part("badnets"),), malicious=0.34, batch=10**4, local_epochs=1))
    fed = fed._replace(
        net=fed.net._replace(vectorized=vectorized), attack=Attack(pace=lambda state: float(state))
    )
    cohort = list(range(12))
    bad = torch.isin(torch.arange(12), fed.malicious)

    def rows(pace: float) -> Tensor:
        units = local_sgd.blocks(fed, 0, cohort, attacked=True)
        start = fed.net.params, fed.net.buffers
        sheet = local_sgd.Sheet(cohort, *start)
        for unit in units:
            local_sgd.train(fed, 0, unit, *start, pace, attacked=True, sheet=sheet)
        return sheet.trained.rows

    whole, half = rows(1.0), rows(0.5)
    torch.testing.assert_close(half[bad], whole[bad] / 2, rtol=1e-3, atol=1e-6)  # one step each
    assert torch.equal(half[~bad], whole[~bad])


def test_the_server_trains_like_an_honest_client() -> None:
    fed = built(MLP)
    shard = fed.shards[4]
    own = Samples(network.to_unit_interval(fed.data.train.x[shard]), fed.data.train.y[shard])
    fed = fed._replace(spec=fed.spec.replace(batch=len(shard), local_epochs=1))
    update = local_sgd.train_samples(fed, 0, fed.net.params, fed.net.buffers, own)
    sent = local_sgd.train(fed, 0, [4], fed.net.params, fed.net.buffers, None, attacked=False).rows[
        0
    ]
    # one batch: its order does not matter
    torch.testing.assert_close(update, sent, rtol=1e-3, atol=1e-5)
    assert torch.equal(
        update, local_sgd.train_samples(fed, 0, fed.net.params, fed.net.buffers, own)
    )


@pytest.mark.parametrize("spec", [MLP, CNN, BATCH_NORM], ids=["mlp", "cnn", "batch norm"])
def test_the_head_maps_features_to_logits(spec: Spec) -> None:
    fed = built(spec)
    x = network.to_unit_interval(fed.data.test.x[:5])
    weight, bias = fed.net.head_slots()
    features = fed.net.features(fed.net.params, x, fed.net.buffers)
    assert weight.shape == (fed.data.classes, features.shape[1]) and bias.shape == (
        fed.data.classes,
    )
    tensors = network.split(fed.net.params, fed.net.layout)
    logits = torch.nn.functional.linear(features, tensors[weight.name], tensors[bias.name])
    torch.testing.assert_close(logits, fed.net.logits(fed.net.params, x, fed.net.buffers))


@pytest.mark.parametrize("model", ["mlp", "cnn", "convnet(width=8, modules=2)"])
@pytest.mark.parametrize("defense", ["fedavg", "fedprox(mu=1)"])
def test_unpoisoned_rows_are_those_of_honest_clients_bit_for_bit(model: str, defense: str) -> None:
    """On the batches that they are dealt, whatever the attack and the rules for honest clients."""
    attack = "label_flip+pgd(radius=0.1)+overtrain(epochs=3)"
    spec = validate(
        MLP.replace(
            model=parse_part(model),
            attack=to_chain(attack, "attack"),
            defense=to_chain(defense, "defense"),
            clients=40,
            malicious=0.5,
            selection="fixed",
            rounds=3,
        )
    )
    fed = built(spec)
    clients = fed.malicious[:3].tolist()
    vectors = fed.net.params, fed.net.buffers
    found = local_sgd.unpoisoned(fed, 2, clients[::-1], *vectors)
    free = built(spec.replace(attack=(), defense=(), malicious=0.0))
    wanted = local_sgd.train(free, 2, clients, *vectors, None, attacked=False)
    assert torch.equal(found.rows.flip(0), wanted.rows)
    assert torch.equal(found.buffers.flip(0), wanted.buffers)


@pytest.mark.parametrize("name", ["sign_aligned", "adaptive", "mask_budget"])
def test_a_poison_of_nothing_adds_nothing(name: str) -> None:
    """What the attacks take for the poison's share of a row holds no noise of the batch order."""
    chain_ = to_chain(f"model_replacement(strength=1)+{name}", "attack")
    spec = MLP.replace(malicious=0.34, selection="fixed", rounds=1)
    attacked = Experiment(spec.replace(attack=chain_), Path("unused"), "cpu")
    free = Experiment(spec, Path("unused"), "cpu")
    cohort = attacked.built.cohort(0)
    malicious = torch.isin(cohort, attacked.built.malicious)
    sent = attacked._train(attacked.state, cohort)[1].rows[malicious]
    honest = free._train(free.state, cohort)[1].rows[malicious]
    wanted = honest if name == "mask_budget" else honest.mean(0).repeat(len(honest), 1)
    if name == "adaptive":  # it may push the rows apart, but not their mean
        sent, wanted = sent.mean(0), wanted[0]
    torch.testing.assert_close(sent, wanted, rtol=1e-4, atol=1e-6)


def test_training_of_an_attacks_own_has_the_loss_of_honest_training() -> None:
    """One step on the given loss is the step that an honest client takes, with class weights as
    without them.
    """
    weights = "-".join(str(number) for number in range(1, 11))
    rows = {}
    for name, params in {"weighted": {"class_weights": weights}, "plain": {}}.items():
        spec = MLP.replace(
            model=Part("mlp", params), attack=(Part("badnets"),), malicious=0.5, local_epochs=1
        )
        fed = built(spec)
        client = int(fed.malicious[0])
        honest = local_sgd.train(
            fed, 0, [client], fed.net.params, fed.net.buffers, None, attacked=False
        ).rows

        def same(_: object, view: TrainView) -> Tensor:
            return (
                view.minimise(
                    lambda vector, step: view.loss(view.model(vector, step.clean.x), step.clean.y)
                )
                - view.params
            )

        fed = fed._replace(attack=Attack(train=same))
        own = local_sgd.train(
            fed, 0, [client], fed.net.params, fed.net.buffers, None, attacked=True
        ).rows
        torch.testing.assert_close(own, honest, rtol=1e-3, atol=1e-5)
        rows[name] = own
    assert (rows["weighted"] - rows["plain"]).abs().max() > 0.01
