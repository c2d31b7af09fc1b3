"""Laws of whole rounds that hold for every attack, over the folder: a new file is picked up by
itself.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment, State
from backstop.platform.specs.part import parse_part, to_chain
from backstop.platform.training import local_sgd, partition

NAMES = plugins.names("attacks")
TASKS = {
    "image": ("digits", "logistic"),
    "table": ("synthetic(samples=400)", "logistic"),
    "text": ("topics", "bag_of_words"),
}
SMALL = Spec(
    clients=8,
    per_round=6,
    malicious=0.4,
    selection="fixed",
    rounds=2,
    batch=32,
    block=3,
    root_size=20,
    alpha=None,
    optimizer=Part("sgd", {"lr": 0.1}),
    eval_every=2,
)


def chain(name: str) -> str:
    """The attack as a whole: a stage that has no trigger goes behind one."""
    return name if plugins.attack_facts(name).trigger else f"label_flip+{name}"


def kind_of(name: str) -> str:
    """The kind of data on which an attack is tried."""
    return (plugins.kinds("attacks", name) or ("image",))[0]


def small(name: str) -> Spec:
    """An experiment of two rounds on data that the attack takes."""
    dataset, model = TASKS[kind_of(name)]
    return SMALL.replace(
        dataset=parse_part(dataset), model=parse_part(model), attack=to_chain(chain(name), "attack")
    )


def done(spec: Spec) -> State:
    """The state after the last round."""
    experiment = Experiment(spec, Path("unused"), "cpu")
    while experiment.state.round < spec.rounds:
        experiment.round()
    return experiment.state


@cache
def free(kind: str) -> Tensor:
    """The parameters after two rounds without any attack."""
    dataset, model = TASKS[kind]
    return done(SMALL.replace(dataset=parse_part(dataset), model=parse_part(model))).params


@pytest.mark.parametrize("name", NAMES)
def test_before_its_first_round_it_is_no_attack_bit_for_bit(name: str) -> None:
    spec = small(name)
    late = Experiment(spec.replace(rounds=3, attack_start=2), Path("unused"), "cpu")
    for _ in range(2):
        late.round()
    assert torch.equal(late.state.params, free(kind_of(name)))


@pytest.mark.parametrize("name", NAMES)
def test_while_it_is_dormant_it_is_no_attack_bit_for_bit(name: str) -> None:
    assert torch.equal(done(small(name).replace(dormant=True)).params, free(kind_of(name)))


@pytest.mark.parametrize("name", NAMES)
def test_only_malicious_rows_change_and_the_cut_into_blocks_does_not_matter(name: str) -> None:
    """Rows of the first round: of the attack in one piece, in single clients from the last to the
    first, and without the attack.
    """
    spec = small(name)
    experiment, unattacked = (
        Experiment(spec, Path("unused"), "cpu"),
        Experiment(spec.replace(attack=()), Path("unused"), "cpu"),
    )
    built = experiment.built
    cohort = partition.cohort(
        clients=spec.clients,
        per_round=spec.per_round,
        selection=spec.selection,
        malicious=built.malicious,
        seed=spec.seed,
        round=0,
    )
    state, attacked, _ = experiment._train(experiment.state, cohort)
    _, clean, _ = unattacked._train(unattacked.state, cohort)
    bad = torch.isin(attacked.client, built.malicious)
    assert torch.equal(attacked.rows[~bad], clean.rows[~bad]) and bad.any()
    assert all((attacked.rows[row] != clean.rows[row]).any() for row in bad.nonzero().flatten())
    params, buffers = experiment.state.params, experiment.state.buffers
    trained: dict[int, Tensor] = {}
    for block in local_sgd.blocks(built, 0, cohort.tolist(), attacked=True):
        rows = local_sgd.train(built, 0, block, params, buffers, state.attack, attacked=True).rows
        trained |= dict(zip(block, rows, strict=True))
    for client in reversed(cohort.tolist()):
        alone = local_sgd.train(built, 0, [client], params, buffers, state.attack, attacked=True)
        assert torch.equal(alone.rows[0], trained[client])


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_from_a_stored_state_with_the_same_bytes(name: str) -> None:
    spec = small(name)
    first = Experiment(spec, Path("unused"), "cpu")
    first.round()
    stored = io.BytesIO()
    torch.save(tuple(first.state), stored)
    first.round()
    stored.seek(0)
    second = Experiment(spec, Path("unused"), "cpu")
    second.state = State(*torch.load(stored, weights_only=False))
    second.round()
    assert torch.equal(first.state.params, second.state.params)
