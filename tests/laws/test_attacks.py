"""Laws that hold for every attack, over the folder: a new file is picked up by itself."""

from __future__ import annotations

import pickle
from typing import get_args

import pytest
import torch
from torch.nn.functional import cross_entropy

from backstop.platform import plugins
from backstop.platform.contract import Kind, Samples
from backstop.platform.laws.attacks import ATTACK_LAWS as LAWS
from backstop.platform.laws.attacks import build_attack as build
from backstop.platform.laws.attacks import poisoned, probe, same, seen, start
from backstop.platform.laws.breach import breaches
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from backstop.platform.threats.backdoor import Planted
from backstop.platform.training.attack_chain import attack_chain
from tests.views import CLASSES, attack_view, samples, train_view, with_data, with_test

NAMES = plugins.names("attacks")
SHAPES = [(1, 1, 1), (1, 2, 5), (3, 8, 8), (1, 28, 28)]
CASES: list[tuple[str, Kind]] = [
    (name, kind) for name in NAMES for kind in plugins.kinds("attacks", name) or get_args(Kind)
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_keeps_the_laws(name: str, law: str) -> None:
    assert list(breaches(name, {law: LAWS[law]})) == []


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_triggered_inputs(name: str, kind: Kind, shape: tuple[int, ...]) -> None:
    attack, view = build(name), seen(name, attack_view(kind, shape=shape))
    test = samples(kind, 32, "test", shape)
    found = probe(attack, start(attack, view), view, Samples(test.x.clone(), test.y.clone()))
    if found is None:
        return
    attacked = (found.wanted >= 0) & (found.wanted != found.truth)  # as the evaluation counts
    assert attacked.any() and len(found.x) == len(found.wanted) == len(found.truth)
    assert found.x.shape[1:] == test.x.shape[1:] and found.x.dtype == test.x.dtype
    assert found.wanted.dtype == found.truth.dtype == torch.int64
    assert (
        (found.wanted >= -1).all() and (found.wanted < CLASSES).all() and (found.truth >= -1).all()
    )
    if kind == "image":
        assert found.x.min() >= 0 and found.x.max() <= 1


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if build(case[0]).poison])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_poisoned_batches(name: str, kind: Kind, count: int) -> None:
    attack, view = build(name), seen(name, attack_view(kind))
    state, random = start(attack, view), torch.get_rng_state()
    batch = samples(kind, count, "batch")
    for index in range(view.clients):
        found = poisoned(attack, state, batch, index)
        assert found.x.shape == batch.x.shape and found.x.dtype == batch.x.dtype
        assert found.y.shape == batch.y.shape and found.y.dtype == batch.y.dtype
        assert (found.y >= 0).all() and (found.y < CLASSES).all()
        assert kind != "image" or (found.x.min() >= 0 and found.x.max() <= 1)
        assert same(tuple(found), tuple(poisoned(attack, state, batch, index)))
        assert count < CLASSES or not same(tuple(found), tuple(batch))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if build(case[0]).constrain])
def test_a_constraint_treats_rows_alike(name: str, kind: Kind) -> None:
    attack, view = build(name), seen(name, attack_view(kind))
    rows, state = (
        torch.randn(3, 24, generator=generator(0, "tests", "malicious")),
        start(attack, view),
    )
    assert attack.constrain is not None
    for step in (1, 2):
        torch.testing.assert_close(
            attack.constrain(state, rows, step)[1], attack.constrain(state, rows[1], step)
        )


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_without_malicious_clients_it_starts_and_is_evaluated(name: str, kind: Kind) -> None:
    attack, view = build(name), attack_view(kind, malicious=0)
    state = attack.init(view) if attack.init else None
    found = probe(attack, state, view, samples(kind, 32, "test"))
    assert found is None or len(found.x)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_state_survives_pickle(name: str, kind: Kind) -> None:
    attack, view = build(name), seen(name, attack_view(kind))
    state, batch = start(attack, view), samples(kind, 16, "batch")
    again = pickle.loads(pickle.dumps(state))
    assert same(state, again)
    if attack.poison:
        assert same(tuple(poisoned(attack, state, batch)), tuple(poisoned(attack, again, batch)))


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if build(case[0]).train])
def test_local_training_of_its_own(name: str, kind: Kind) -> None:
    """It gives one finite row, the same for the same view, another than the honest steps, and
    changes nothing it is given.
    """
    attack, view = build(name), seen(name, attack_view(kind))
    assert attack.train is not None
    state, random = start(attack, view), torch.get_rng_state()
    given = train_view(kind)
    before = pickle.loads(pickle.dumps((given.params, given.steps)))
    row, again = attack.train(state, given), attack.train(state, train_view(kind))
    assert (
        row.shape == given.params.shape
        and row.isfinite().all()
        and row.any()
        and torch.equal(row, again)
    )
    assert same((given.params, given.steps), before) and torch.equal(random, torch.get_rng_state())
    plain = (
        given.minimise(
            lambda params, step: cross_entropy(
                given.model(params, step.poisoned.x), step.poisoned.y
            )
        )
        - given.params
    )
    assert not torch.allclose(row, plain)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_chain_does_what_its_stages_do(name: str, kind: Kind) -> None:
    knows = plugins.attack_facts(name).knows
    stage, batch, test = build(name), samples(kind, 16, "batch"), samples(kind, 32, "test")
    alone, whole = (
        attack_chain(stages, knew)
        for stages, knew in (
            ([stage], [knows]),
            ([stage, build("model_replacement", strength=3.0)], [knows, "own"]),
        )
    )
    # a generator of its own in each
    view, again = seen(name, attack_view(kind)), seen(name, attack_view(kind))
    state, states = start(alone, view), start(whole, again)
    rows = torch.randn(3, 24, generator=generator(0, "tests", "malicious"))
    assert whole.craft is not None
    torch.testing.assert_close(
        whole.craft(states, rows, again),
        3.0 * (alone.craft(state, rows, view) if alone.craft else rows),
    )
    if alone.poison:
        assert same(tuple(poisoned(alone, state, batch)), tuple(poisoned(whole, states, batch)))
    one, other = probe(alone, state, view, test), probe(whole, states, again, test)
    assert (one is None) == (other is None) and (
        one is None or same(tuple(one), tuple(other or ()))
    )


def test_badnets_stamps_one_pixel_from_the_corner_and_relabels_the_first_half() -> None:
    x, y = torch.zeros(5, 3, 8, 8), torch.tensor([1, 2, 3, 1, 2])
    found = poisoned(build("badnets", target=0, size=3, share=0.5), Planted(CLASSES), Samples(x, y))
    assert found.y.tolist() == [0, 0, 0, 1, 2]  # half of five, halves up
    assert found.x.sum((1, 2, 3)).tolist() == [27.0, 27.0, 27.0, 0.0, 0.0]
    assert (found.x[0, :, 4:7, 4:7] == 1).all()


def test_badnets_covers_a_small_image_and_one_to_one_leaves_others_alone() -> None:
    trigger = build("badnets", size=8).trigger
    assert trigger is not None
    draws = generator(0, "tests", "trigger")
    assert trigger(Planted(CLASSES), torch.zeros(2, 1, 5, 8), draws).sum() == 80
    assert trigger(Planted(CLASSES), torch.zeros(2, 1, 8, 8), draws).sum() == 128
    assert trigger(Planted(CLASSES), torch.zeros(2, 1, 9, 9), draws)[..., :8, :8].sum() == 128
    one_to_one, y = build("badnets", source=2, share=1.0), torch.tensor([1, 2, 3, 2, 2])
    assert poisoned(
        one_to_one, Planted(CLASSES), Samples(torch.zeros(5, 1, 8, 8), y)
    ).y.tolist() == [1, 0, 3, 0, 0]
    assert one_to_one.goal is not None
    assert one_to_one.goal(Planted(CLASSES), y).tolist() == [-1, 0, -1, 0, 0]


@pytest.mark.parametrize("name", ["badnets", "label_flip", "edge_case"])
def test_the_smallest_share_poisons_one_sample(name: str) -> None:
    attack, view = build(name, share=1e-6), attack_view("image")
    batch = Samples(samples("image", 9, "batch").x, torch.ones(9, dtype=torch.int64))
    assert (
        poisoned(attack, start(attack, view), batch).y != batch.y
    ).nonzero().flatten().tolist() == [0]


def test_label_flip_flips_the_source_only() -> None:
    x, y = torch.rand(6, 2, generator=generator(0, "tests", "x")), torch.tensor([0, 1, 2, 1, 1, 3])
    flip = build("label_flip", source=1, target=3)
    found = poisoned(flip, None, Samples(x, y))
    assert torch.equal(found.x, x) and found.y.tolist() == [0, 3, 2, 3, 3, 3]
    assert flip.goal is not None and flip.goal(None, y).tolist() == [-1, 3, -1, 3, 3, -1]
    assert poisoned(
        build("label_flip", source=1, target=3, share=0.1), None, Samples(x, y)
    ).y.tolist() == [0, 3, 2, 1, 1, 3]


def test_edge_case_external() -> None:
    attack, view = build("edge_case"), attack_view("image", edges=True)
    state = start(attack, view)
    assert view.edge_cases is not None
    train, test = view.edge_cases()
    batch = samples("image", 64, "batch")
    found = poisoned(attack, state, batch)
    changed = (found.x != batch.x).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == list(range(8))  # 8 of 64, as published
    assert found.y[:8].tolist() == [CLASSES - 1] * 8 and torch.equal(found.y[8:], batch.y[8:])
    assert all(any(torch.equal(one, other) for other in train.x) for one in found.x[:8])
    triggered = probe(attack, state, view, samples("image", 32, "test"))
    assert triggered is not None
    assert (
        torch.equal(triggered.x, test.x)
        and (triggered.truth == -1).all()
        and (triggered.wanted == CLASSES - 1).all()
    )
    assert start(build("edge_case", target=2), view).y.tolist() == [2] * 8


def test_edge_case_tail_is_what_lies_far_out() -> None:
    attack, view = build("edge_case", tail=0.2, source=1), attack_view("table")
    far = view.data.y.eq(1).nonzero().flatten()[[3, 6]]
    x = view.data.x.clone()
    x[far] += 30 * torch.tensor([1.0, -1.0])[:, None]
    state = start(attack, with_data(view, Samples(x, view.data.y)))
    # 2 of the 10 samples of class 1
    assert torch.equal(state.x, x[far]) and state.y.tolist() == [0, 0]
    triggered = probe(attack, state, view, samples("table", 40, "test"))
    assert triggered is not None
    assert triggered.truth.tolist() == [1, 1] and triggered.wanted.tolist() == [0, 0]


@pytest.mark.parametrize(("count", "features"), [(30, 4), (4, 30)])
def test_edge_case_density_is_the_gaussian_of_its_data_sheet(count: int, features: int) -> None:
    from backstop.attacks.edge_case import _rare

    x = torch.randn(count, features, generator=generator(0, "tests", "density")) * torch.logspace(
        0, -2, features
    )
    points = (x - x.mean(0)).double()
    covariance = points.T @ points / count
    values = torch.linalg.eigvalsh(covariance)
    ridge = values.sum() / min(count, features)
    distance = [
        (p @ torch.linalg.inv(covariance + ridge * torch.eye(features)) @ p).item() for p in points
    ]
    far = sorted(range(count), key=lambda i: -distance[i])[: count // 2]
    assert _rare(x, 0.5).tolist() == sorted(far)


def test_edge_case_refusals() -> None:
    view = attack_view("table")
    with pytest.raises(BadInput, match="the dataset has no edge cases"):
        start(build("edge_case", pool="external"), view)
    with pytest.raises(BadInput, match="must be two classes"):
        start(build("edge_case", source=2, target=2), view)
    alone = with_data(view, Samples(view.data.x[view.data.y != 1], view.data.y[view.data.y != 1]))
    with pytest.raises(BadInput, match=r"source=1; they hold \[0, 2, 3\]"):
        start(build("edge_case"), alone)


def test_edge_case_tail_can_be_asked_for() -> None:
    found = build("edge_case", pool="tail")
    view = with_test(attack_view("image", edges=True))
    assert found.test_set is not None
    # a fifth of 8 test samples, rounded
    assert found.test_set(start(found, view), view).truth.tolist() == [1, 1]
