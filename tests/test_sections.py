"""Rows that are nowhere as a whole: what sections of their coordinates ask of each other, and
rounds whose rows stay with the client actors, against the same in one process, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform import plugins, robust
from backstop.platform.contract import BrokenStage, Defense, Part, Shares, Spec, Updates, stateless
from backstop.platform.examples import server_view
from backstop.platform.experiment import Experiment
from backstop.platform.kernels import sections
from backstop.platform.laws import scopes
from backstop.platform.laws.breach import Breach
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import validate
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.federation import Federation, build_federation
from backstop.platform.training.loading import load_dataset
from backstop.platform.training.local_sgd import Trained
from backstop.platform.training.matrix import WholeMatrix
from backstop.platform.workers import apart
from backstop.platform.workers.actors import ActorShare, OnActors
from backstop.platform.workers.apart import Block, Call, MatrixApart
from backstop.platform.workers.clients import Clients, InProcess
from backstop.platform.workers.connection import local_ray
from backstop.platform.workers.limits import Limits

pytestmark = [
    pytest.mark.xdist_group("actors"),
    pytest.mark.skipif(not robust.COMPILED, reason="rows are cut where numba is installed"),
]
NOWHERE = Path("unused")
# 153,610 parameters: three sections
SPEC = Spec(
    model=Part("mlp", {"hidden": 2048}),
    clients=12,
    per_round=7,
    malicious=0.3,
    selection="fixed",
    rounds=2,
    batch=32,
    block=3,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.1}),
    attack=(Part("badnets"),),
)
REPLACED = "badnets+model_replacement(strength=30)"
CHAINS = (
    ("fedavg", "badnets"),
    ("median", "badnets"),
    ("trimmed_mean", "badnets"),
    ("invariant", "badnets"),
    ("sign_majority", "badnets"),
    ("krum(f=2)", "badnets"),
    ("multi_krum(f=2)", REPLACED),
    ("norm_clip(norm=0.5)+median", "badnets"),
    ("fedprox+norm_clip(norm=0.5)+nnm(f=2)+trimmed_mean", REPLACED),
)


class Store:
    """As much of Ray as a matrix needs, in this process."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, item: Any) -> int:
        self.items.append(item)
        return len(self.items) - 1

    def get(self, ref: int) -> Any:
        return self.items[ref]


class Actor:
    """A client actor in this process."""

    def __init__(self, store: Store, defense: Defense) -> None:
        self.store = store
        self.chain = defense
        self.widest = 0  # coordinates of the rows that it was given

    @property
    def defend(self) -> Actor:
        return self

    def remote(
        self,
        job: Any,
        answers: Sequence[Any],
        *refs: int,
    ) -> Any:
        self.widest = max(self.widest, job.width)
        return job.defended(self.chain, [self.store.get(ref) for ref in refs], answers)


def scattered(
    rows: Tensor,
    defense: Defense,
    store: Store,
) -> tuple[MatrixApart, Actor]:
    """Rows (n, d) as two blocks, none of which has neighbors together."""
    actor = Actor(store, defense)
    n, d = rows.shape
    where = apart.cuts(n, d, actors=3)
    blocks = []
    for first in (0, 1):
        numbers = list(range(first, len(rows), 2))
        stored = [store.put(piece) for piece in apart.pieces(rows[numbers], where)]
        blocks.append(Block(numbers, stored))
    finite = rows.isfinite().all(1)

    def share_out(calls: Sequence[Call]) -> list[Any]:
        return [call(actor) for call in calls]

    return MatrixApart(store, share_out, where, blocks, finite), actor


def noise(n: int) -> Tensor:
    d = 3 * sections.piece() - 77
    return torch.randn(n, d, generator=generator(0, "tests", "apart")) * 0.01


@pytest.mark.parametrize("defense", ["median", "krum(f=1)", "norm_clip(norm=0.5)+multi_krum(f=1)"])
def test_crafted_and_broken_rows_apart_are_those_of_one_matrix(defense: str) -> None:
    rows = noise(8)
    rows[6, 70_000] = torch.nan
    present = torch.tensor([True, False, False, True, False, False, False, False])
    spec = SPEC.replace(defense=to_chain(defense, "defense"))
    stages = built(spec).defense
    matrix, actor = scattered(rows, stages, Store())
    whole = WholeMatrix(rows.clone())
    results = []
    for held in (matrix, whole):
        crafted = held.of(present)
        assert torch.equal(crafted, rows[present])
        held.replace(present, crafted * torch.tensor([[-3.0], [torch.inf]]))
        finite = held.finite()
        assert finite.tolist() == [True, True, True, False, True, True, False, True]
        held.keep(finite)
        sent = Shares(torch.arange(8)[finite] * 2, torch.arange(1.0, 9.0)[finite])
        view = server_view(torch.zeros(rows.shape[1]))
        results.append(held.defended(sent, stages, stages.init(view), view))
    one, other = results
    assert torch.equal(one.aggregate, other.aggregate)
    assert torch.equal(one.stopped(), other.stopped())
    for mine, same in zip((*one.left, *one.shares), (*other.left, *other.shares), strict=True):
        assert torch.equal(mine, same)
    assert actor.widest == sections.piece() < rows.shape[1]


def own_length(updates: Updates) -> Updates:
    """Asks for norms, not for the length."""
    scale = robust.norms(updates.rows).float()[:, None] / updates.rows.shape[1]
    return updates._replace(rows=updates.rows * scale)


def own_norms(updates: Updates) -> Updates:
    return updates._replace(rows=updates.rows / updates.rows.norm(dim=1, keepdim=True).clamp_min(1))


def own_weights(updates: Updates) -> Updates:
    return updates._replace(weight=updates.weight * updates.rows[:, 0].abs())


def sometimes_asks(updates: Updates) -> Updates:
    if updates.rows.shape[1] < sections.piece():
        robust.norms(updates.rows)
    return updates


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (own_length, "expected of sections of plain rows the aggregate"),
        (own_norms, "expected of sections of plain rows the aggregate"),
        (own_weights, "leave clients different weights"),
        (sometimes_asks, "ask what others do not need"),
    ],
)
def test_the_law_finds_a_scope_that_is_not_so(
    rule: Any,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scopes, "tries", lambda group, name: [{}])
    monkeypatch.setattr(
        plugins, "build", lambda group, name, params: stateless(rule, scope="coordinates")
    )
    with pytest.raises((Breach, ValueError), match=told):
        scopes.goes_in_sections("liar")


def test_a_stage_that_looks_at_its_view_is_named() -> None:
    curious = Defense(
        apply=lambda updates, state, view: (updates, view.params),
        scope="coordinates",
    )
    rows = noise(3)
    updates = Updates(rows, torch.ones(3), torch.arange(3))
    with pytest.raises(BrokenStage, match="defense curious: AttributeError"):
        scopes.in_sections(chain(curious, names=["curious"]), updates, sections.piece())


def test_a_chain_goes_by_coordinates_where_all_of_its_stages_do() -> None:
    good = stateless(lambda updates: updates, scope="coordinates")
    trains_only = Defense(finish=lambda state, view: view.params)
    assert chain(good, trains_only).follow_section is not None
    assert chain(good, trains_only).scope == "coordinates"
    assert chain(good, stateless(lambda updates: updates)).follow_section is None


def test_sections_begin_where_pieces_do_and_none_is_large() -> None:
    piece = sections.piece()
    assert apart.cuts(20, 5, actors=3) == [(0, 5)]
    assert apart.cuts(20, piece + 1, actors=2) == [(0, piece), (piece, piece + 1)]
    where = apart.cuts(20, 11_000_000, actors=3)
    assert [first for first, _ in where[1:]] == [last for _, last in where[:-1]]
    assert where[-1][1] == 11_000_000
    for first, last in where:
        assert first % piece == 0
        assert 4 * 20 * (last - first) <= apart.SECTION_BYTES


def built(spec: Spec) -> Federation:
    data = load_dataset(spec.dataset, NOWHERE)
    return build_federation(validate(spec), data, torch.device("cpu"))


@pytest.mark.parametrize(
    ("gib", "defense", "attack", "stay", "line"),
    [
        (None, "median", "badnets", False, ""),  # small rows
        (0.01, "norm_clip+median", "badnets", True, ""),
        (0.01, "foolsgold+median", "badnets", False, "the defense foolsgold takes whole rows"),
        (0.01, "and_mask(rescale=true)", "badnets", False, "the defense and_mask takes whole rows"),
        (0.01, "median", "badnets+alie", False, "the attack alie is shown all of them"),
    ],
)
def test_rows_stay_apart_where_they_are_large_and_can(
    gib: float | None,
    defense: str,
    attack: str,
    stay: bool,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = SPEC.replace(defense=to_chain(defense, "defense"), attack=to_chain(attack, "attack"))
    workers = OnActors(0, limits=Limits(gib=gib))
    federation = built(spec)
    capsys.readouterr()
    assert workers._stays_apart(federation) == stay
    told = f"one process holds the 4 MiB of a round's rows: {line}\n"
    assert capsys.readouterr().err == (told if line else "")


def rounds(
    spec: Spec,
    workers: Clients | None = None,
) -> tuple[list[dict[str, float]], bytes]:
    """The figures of every round, and the final model's bytes."""
    experiment = Experiment(spec, NOWHERE, "cpu", workers)
    figures = []
    while experiment.rounds_left:
        record = experiment.round()
        assert record is not None
        figures.append(dict(record.metrics))
    return figures, experiment.state.params.numpy().tobytes()


class Scattering(InProcess):
    """Clients of this process whose rows are nowhere as a whole from then on."""

    def matrix(self, trained: Trained) -> MatrixApart:
        matrix, _ = scattered(trained.rows, self.built.defense, Store())
        return matrix


@pytest.mark.parametrize(("defense", "attack"), CHAINS)
def test_a_round_in_sections_is_that_of_one_matrix(defense: str, attack: str) -> None:
    spec = SPEC.replace(defense=to_chain(defense, "defense"), attack=to_chain(attack, "attack"))
    assert rounds(spec, Scattering()) == rounds(spec)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A private Ray with room for the actors of these tests."""
    with local_ray(None, cpus=4) as found:
        yield found


def test_rounds_whose_rows_stay_apart_have_the_bytes_of_one_process(ray: Any) -> None:
    workers = OnActors(3, share=ActorShare(cpus=0.5), in_sections=True)
    try:
        for defense, attack in CHAINS:
            spec = SPEC.replace(
                defense=to_chain(defense, "defense"), attack=to_chain(attack, "attack")
            )
            assert rounds(spec, workers) == rounds(spec), defense
            assert workers.apart
    finally:
        workers.close()
