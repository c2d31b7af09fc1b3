"""What a defense sees of the clients' buffers, and what an adversary makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import backstop
from backstop.platform import plugins, seeds
from backstop.platform.contract import (
    BrokenStage,
    Buffers,
    Defense,
    Part,
    ServerView,
    Spec,
    Updates,
    no_buffers,
)
from backstop.platform.examples import batch_norm, server_view
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.rounds.views import Presence
from backstop.platform.specs.part import parse_part, to_chain
from backstop.platform.specs.spec import validate
from backstop.platform.training import local_sgd
from backstop.platform.training.defense_chain import chain, goes_by_coordinates
from backstop.platform.training.server_step import with_buffers

NOWHERE = Path("unused")
SPEC = Spec(
    dataset=Part("digits"),
    model=parse_part("convnet(width=4, modules=1)"),
    clients=8,
    per_round=4,
    malicious=0.25,
    rounds=2,
    batch=64,
    optimizer=Part("sgd", {"lr": 0.1}),
)


class Spy:
    """A stage that leaves the rows alone and takes down the buffers that it was shown."""

    def __init__(self) -> None:
        self.seen: list[Buffers] = []
        self.sent: list[Tensor] = []

    def stage(self) -> Defense:
        def apply(updates: Updates, state: Any, view: ServerView) -> tuple[Updates, Any]:
            self.seen.append(view.buffers)
            self.sent.append(view.buffers.of(updates.client))
            return updates, state

        return Defense(apply=apply)


def spied(spec: Spec, *before: str) -> tuple[Experiment, Spy]:
    """An experiment whose defense is these stages and a spy behind them."""
    experiment, spy = Experiment(spec, NOWHERE, "cpu"), Spy()
    stages = [plugins.build("defenses", name, {}) for name in before]
    defense = chain(*stages, spy.stage())
    experiment.built = experiment.views.built = experiment.built._replace(defense=defense)
    first = defense.init(experiment.views.server(experiment.state))
    experiment.state = experiment.state._replace(defense=first)
    return experiment, spy


def test_a_defense_sees_what_the_clients_of_the_round_sent() -> None:
    experiment, spy = spied(SPEC)
    built = experiment.built
    for _ in range(SPEC.rounds):
        state = experiment.state
        cohort = built.cohort(state.round)
        trained = local_sgd.train(
            built, state.round, cohort.tolist(), state.params, state.buffers, None, attacked=False
        )
        experiment.round()
        seen = spy.seen[-1]
        assert torch.equal(seen.client, cohort) and torch.equal(seen.start, state.buffers)
        assert torch.equal(seen.changes, trained.buffers) and seen.changes.any()
        assert torch.equal(spy.sent[-1], state.buffers + trained.buffers)
        names = {slot.name: tuple(slot.of(seen.start).shape) for slot in seen.layout}
        assert names == {"norm1.running_mean": (4,), "norm1.running_var": (4,)}


def test_outside_of_a_round_nobody_has_sent_any() -> None:
    experiment = Experiment(SPEC, NOWHERE, "cpu")
    buffers = experiment.views.server(experiment.state).buffers
    assert buffers.changes.shape == (0, 8) and not len(buffers.client)
    assert torch.equal(buffers.start, experiment.state.buffers) and len(buffers.layout) == 2
    plain = Experiment(SPEC.replace(model=Part("mlp")), NOWHERE, "cpu")
    assert plain.views.server(plain.state).buffers.layout == no_buffers().layout == ()


@pytest.mark.parametrize("before", ["multi_krum", "norm_clip", "krum"])
def test_a_later_stage_sees_those_of_the_clients_that_are_left(before: str) -> None:
    experiment, spy = spied(SPEC, before)
    experiment.round()
    (seen,), (sent,) = spy.seen, spy.sent
    assert len(seen.client) == 4 and 1 <= len(sent) <= 4
    assert all((seen.start + seen.changes == one).all(1).any() for one in sent)


def test_a_merged_row_has_none() -> None:
    experiment, _ = spied(SPEC, "median")
    with pytest.raises(BrokenStage, match="no buffers came from clients \\[-1\\]"):
        experiment.round()


def test_buffers_are_found_by_client_in_any_order() -> None:
    buffers = batch_norm(torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(3, 1))
    buffers = buffers._replace(client=torch.tensor([2, 5, 9]))
    assert buffers.of(torch.tensor([9, 2])).tolist() == [[3.0, 1.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="clients \\[4\\]"):
        buffers.of(torch.tensor([2, 4]))
    assert no_buffers().of(torch.zeros(0, dtype=torch.int64)).shape == (0, 0)


def test_who_looks_at_buffers_takes_whole_rows() -> None:
    assert not goes_by_coordinates(Spy().stage())


def test_existing_ways_to_make_updates_and_views_go_on() -> None:
    rows = torch.ones(2, 3)
    assert len(Updates(rows, torch.ones(2), torch.arange(2))) == 3
    view = server_view()
    assert view.buffers.layout == ()
    sent = with_buffers(view, torch.tensor([0]), torch.zeros(1, 0))
    assert sent.params is view.params and sent.buffers.client.tolist() == [0]


# -- the defenses that look at them, and the adversary


def refused(spec: Spec) -> str:
    with pytest.raises(BadInput) as caught:
        Experiment(validate(spec), NOWHERE, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_without_batch_norm_is_refused_before_the_start() -> None:
    for model in ("mlp", "cnn", "resnet18"):
        bare = SPEC.replace(defense=to_chain("bnguard", "defense"), model=Part(model))
        told = refused(bare)
        assert "bnguard" in told and model in told and "BatchNorm" in told


@pytest.mark.parametrize("before", ["median", "bucketing"])
def test_merged_rows_are_refused_before_the_start(before: str) -> None:
    chained = SPEC.replace(defense=to_chain(f"{before}+bnguard", "defense"))
    assert "put bnguard first" in refused(chained)


def test_the_adversarys_copy_of_a_defense_is_shown_the_buffers_that_it_makes_up() -> None:
    experiment, spy = spied(SPEC)
    defend = experiment.views.attack(experiment.state).defend
    assert defend is not None
    rows = torch.zeros(3, len(experiment.state.params))
    updates = Updates(rows, torch.ones(3), torch.tensor([0, 1, 40]))
    defend(updates)
    assert torch.equal(spy.sent[0], experiment.state.buffers.expand(3, -1))
    changes = torch.arange(24.0).view(3, 8)
    changes[1, 0] = torch.nan
    after, _ = defend(updates, buffers=changes)
    assert after.client.tolist() == [0, 40]
    assert torch.equal(spy.seen[1].changes, changes[[0, 2]])


def test_what_members_would_have_sent_unpoisoned_has_its_buffers() -> None:
    attacked = SPEC.replace(attack=to_chain("badnets(share=1.0)+honest_buffers", "attack"))
    experiment = Experiment(attacked, NOWHERE, "cpu")
    presence = Presence(torch.tensor([0, 1]), 4, 0.5)
    view = experiment.views.attack(experiment.state, presence)
    honest = local_sgd.unpoisoned(
        experiment.built,
        0,
        experiment.built.malicious.tolist(),
        experiment.state.params,
        experiment.state.buffers,
    )
    assert torch.equal(view.unpoisoned(), honest.rows)
    assert torch.equal(view.unpoisoned_buffers(), honest.buffers) and honest.buffers.any()


# -- the library


def states(mean: Tensor) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Updates of clients whose running means these are (n, c), and the global model."""
    start = torch.nn.BatchNorm1d(mean.shape[1]).state_dict()
    draws = seeds.generator(0, "states")
    updates = []
    for one in mean:
        update = {name: torch.zeros_like(value) for name, value in start.items()}
        update["weight"] = torch.randn(len(one), generator=draws)
        update["running_mean"] = one
        updates.append(update)
    return updates, start


def test_the_library_shows_a_defense_the_statistics_that_the_updates_hold() -> None:
    mean = torch.zeros(6, 3)
    mean[4] = torch.tensor([5.0, 7.0, 9.0])
    updates, start = states(mean)
    bnguard = backstop.defense("bnguard")
    assert bnguard.needs == ("params", "buffers")
    after = bnguard.aggregate(updates, params=start)
    assert [bnguard.kept[client] for client in range(6)] == [1, 1, 1, 1, 0, 1]
    assert not after["running_mean"].any()
    with pytest.raises(BadInput, match="bnguard needs more than updates; give params="):
        backstop.defense("bnguard").aggregate(updates)
    bare = [{"weight": update["weight"]} for update in updates]
    with pytest.raises(BadInput, match="statistics of BatchNorm layers"):
        backstop.defense("bnguard").aggregate(bare, params={"weight": start["weight"]})
