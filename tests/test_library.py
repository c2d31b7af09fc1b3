"""Defenses and triggers as a library: what the platform computes, in the caller's own forms."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import backstop
from backstop.platform import experiment, plugins, seeds
from backstop.platform.contract import BrokenStage, Part
from backstop.platform.experiment import Experiment
from backstop.platform.library.aggregation import Aggregator
from backstop.platform.library.needs import HOW
from backstop.platform.params import BadInput
from backstop.platform.specs.spec import Spec
from backstop.platform.training import federation as federations
from backstop.platform.training import server_step
from backstop.platform.training.loading import data_folder
from backstop.platform.training.matrix import WholeMatrix
from backstop.platform.training.network import to_unit_interval

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

NO_AGGREGATION = {
    *("ditto", "fedbn", "fedprox", "fedrep", "flip", "leadfl", "local_dp", "lockdown"),
    *("fine_pruning", "nad", "neural_cleanse", "strip"),
    *("baffle", "crowdguard", "flshield"),
}
AGGREGATING = [name for name in plugins.names("defenses") if name not in NO_AGGREGATION]
# which a test of their own holds to the platform, with a model that has BatchNorm
BY_BUFFERS = [name for name in AGGREGATING if "buffers" in plugins.defense_facts(name).needs]
SMALL = {  # parameters with which a defense acts within three rounds, quickly
    "indicator": "indicator(samples=40, epochs=3)",
    "fldetector": "fldetector(window=1, warm=0)",
    "flanders": "flanders(sampled=50)",
}
CHAINS = [
    *(SMALL.get(name, name) for name in AGGREGATING if name not in BY_BUFFERS),
    "norm_clip(norm=1)+median",
    "foolsgold+norm_clip(norm=1)+crfl(norm=10)",
    "nnm(f=1)+trimmed_mean",
    "fldetector(window=1, warm=0)+fltrust",
]
TRIGGERS = ["badnets", "blended", "bpp", "dba", "ftrojan", "invisible", "physical", "sig"]
ROUNDS = 3


def draws(*path: str | int) -> np.random.Generator:
    return np.random.default_rng(seeds.stream(0, "library", *path))


def rows(n: int = 8, d: int = 12, index: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return draws("rows", n, d, index).normal(size=(n, d)).astype(np.float32)


class Small(nn.Module):
    """A model with normalization, so with buffers and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.relu(self.norm(self.first(x))))
        return logits


def small() -> Small:
    with seeds.seeded(0, "small"):
        return Small()


def root() -> tuple[Tensor, Tensor]:
    generator = seeds.generator(0, "root")
    return torch.randn(60, 4, generator=generator), torch.arange(60) % 3


def updates_of(model: nn.Module, n: int = 6) -> list[dict[str, Tensor]]:
    """Differences of state dicts, of n clients."""
    generator = seeds.generator(0, "updates")

    def change(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return torch.full_like(value, 5)
        return torch.randn(value.shape, generator=generator) / 10

    return [{name: change(value) for name, value in model.state_dict().items()} for _ in range(n)]


# -- as the platform's own round


class Normalized(nn.Module):
    """A model of the platform as another stack has it: with its normalization inside."""

    def __init__(self, inner: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.shift, self.scale = (nn.Buffer(value, persistent=False) for value in (shift, scale))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner((x - self.shift) * self.scale)
        return logits


class Sent(NamedTuple):
    """What the clients of a round sent."""

    rows: Tensor
    buffers: Tensor


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """The rows of each round, as they come to the server."""
    kept: list[Sent] = []
    original = server_step.keep_finite

    def recording(matrix: WholeMatrix, changes: Tensor) -> Tensor:
        kept.append(Sent(matrix.rows.clone(), changes.clone()))
        return original(matrix, changes)

    monkeypatch.setattr(experiment, "keep_finite", recording)
    return kept


def federation(defense: str, attack: str = "badnets+model_replacement(strength=3)") -> Experiment:
    spec = Spec(
        attack=backstop.parse_chain(attack),
        defense=backstop.parse_chain(defense),
        clients=12,
        per_round=8,
        malicious=0.25,
        rounds=ROUNDS + 1,  # the last is not done: the final model is repaired after it
        eval_every=100,
        root_size=20,
        server_lr=0.5,
        optimizer=Part("sgd", {"lr": 0.05}),
        seed=3,
    )
    return Experiment(spec, data_folder(), "cpu")


def library_of(run: Experiment) -> tuple[Aggregator, dict[str, Any]]:
    """The same defense as a library, and what its methods are given besides updates."""
    spec, built = run.spec, run.built
    library = backstop.defense(
        spec.defense,
        seed=spec.seed,
        server_lr=spec.server_lr,
        local_epochs=spec.local_epochs,
        batch=spec.batch,
        optimizer=spec.optimizer,
    )
    net, clean = built.net, built.data.root
    assert clean is not None and net.shift is not None and net.scale is not None
    model = Normalized(copy.deepcopy(net.module), net.shift, net.scale)
    return library, {"model": model, "root": (to_unit_interval(clean.x), clean.y)}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_round_has_the_bits_of_the_platforms(chain: str, sent: list[Sent]) -> None:
    run = federation(chain)
    library, extras = library_of(run)
    for index in range(ROUNDS):
        cohort = run.built.cohort(index)
        before = run.state.params.clone()
        run.round()
        weights = [len(run.built.shards[client]) for client in cohort.tolist()]
        shuffled = draws("order", index).permutation(len(cohort))
        params = library.send(before, **extras)
        aggregate = library.aggregate(
            sent[index].rows[shuffled],
            np.array(weights)[shuffled],
            cohort[shuffled],
            params=params,
            **extras,
        )
        moved = params + aggregate * run.spec.server_lr
        assert torch.equal(moved, run.state.params), f"round {index}"
        library = pickle.loads(pickle.dumps(library))
    assert library.round == ROUNDS
    if "fldetector" in chain:  # else the rounds would show nothing of its state
        assert any(weight == 0 for weight in library.kept.values())


def test_whole_models_move_the_model_as_updates_do(sent: list[Sent]) -> None:
    run = federation("foolsgold(features=all)+median")
    library, _ = library_of(run)
    for index in range(2):
        before = run.state.params.clone()
        cohort = run.built.cohort(index)
        run.round()
        updates = sent[index].rows
        models = list(before + updates)
        weights = [len(run.built.shards[client]) for client in cohort.tolist()]
        expected = copy.deepcopy(library).aggregate(
            torch.stack(models) - before, weights, cohort, params=before
        )
        after = library.aggregate_models(models, weights, cohort, params=before)
        assert torch.equal(after, before + expected * run.spec.server_lr)
        torch.testing.assert_close(after, run.state.params)


@pytest.mark.parametrize("chain", ["multi_krum(f=2)", *BY_BUFFERS])
def test_buffers_have_the_bits_of_the_platforms(
    chain: str, sent: list[Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    def normalizing(_: Spec, __: object) -> nn.Module:
        with seeds.seeded(0, "normalizing"):
            first, last = nn.Linear(64, 8), nn.Linear(8, 10)
        return nn.Sequential(nn.Flatten(), first, nn.BatchNorm1d(8), last)

    monkeypatch.setattr(federations, "_model", normalizing)
    run = federation(chain)
    library, _ = library_of(run)
    net, model = run.built.net, normalizing(run.spec, None)
    assert len(run.state.buffers) == 16
    for index in range(2):
        start, cohort = dict(run.model), run.built.cohort(index)
        counter = {"2.num_batches_tracked": torch.tensor(index)}
        run.round()
        pairs = zip(sent[index].rows, sent[index].buffers, strict=True)
        updates = [{**net.tensors(*pair), **counter} for pair in pairs]
        weights = [len(run.built.shards[client]) for client in cohort.tolist()]
        given = {"params": {**start, **counter}, "model": model if index else None}
        aggregate = library.aggregate(updates, weights, cohort, **given)
        for name, _ in model.named_parameters():
            moved = start[name] + aggregate[name] * run.spec.server_lr
            assert torch.equal(moved, run.model[name]), name
        for name in ("2.running_mean", "2.running_var"):
            assert torch.equal(start[name] + aggregate[name], run.model[name]), name


def test_rows_that_are_not_finite_are_left_out_as_in_a_round(
    sent: list[Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federation("median", attack="badnets")
    original = run.clients.matrix

    def broken(trained: Any) -> Any:
        trained.rows[2, 5] = torch.nan
        trained.rows[4, 0] = torch.inf
        return original(trained)

    monkeypatch.setattr(run.clients, "matrix", broken)
    library, _ = library_of(run)
    before, cohort = run.state.params.clone(), run.built.cohort(0).tolist()
    run.round()
    aggregate = library.aggregate(sent[0].rows, clients=cohort)
    assert torch.equal(before + aggregate * run.spec.server_lr, run.state.params)
    assert [library.kept[cohort[index]] for index in (2, 4)] == [0, 0]
    assert all(library.kept[cohort[index]] == 1 for index in (0, 1, 3, 5, 6, 7))


def test_buffers_are_averaged_with_the_weights_that_the_defense_leaves() -> None:
    model, updates = small(), updates_of(small())
    for value in updates[0].values():
        if value.is_floating_point():
            value.mul_(100)
    krum = backstop.defense("multi_krum(f=1)")
    aggregate = krum.aggregate(updates, weights=range(1, 7))
    kept = [index for index, weight in krum.kept.items() if weight]
    assert 0 not in kept and len(kept) > 1
    expected = sum(
        updates[int(index)]["norm.running_mean"] * krum.kept[index] for index in kept
    ) / sum(krum.kept.values())
    torch.testing.assert_close(aggregate["norm.running_mean"], expected)
    assert aggregate["norm.num_batches_tracked"].item() == 0
    given = model.state_dict()
    sums = [{name: given[name] + row[name] for name in given} for row in updates]
    after = backstop.defense("multi_krum(f=1)").aggregate_models(sums, range(1, 7), params=given)
    assert after["norm.num_batches_tracked"].item() == given["norm.num_batches_tracked"].item()
    torch.testing.assert_close(
        after["norm.running_mean"], given["norm.running_mean"] + aggregate["norm.running_mean"]
    )


# -- every registered defense


@pytest.mark.parametrize("name", plugins.names("defenses"))
def test_every_defense_aggregates_or_says_why_not(name: str) -> None:
    if name in NO_AGGREGATION:
        does = f"^defense {name} (changes|repairs|labels|lets) "
        with pytest.raises(BadInput, match=does) as caught:
            backstop.defense(f"norm_clip+{name}")
        assert one_line(caught.value) and f"backstop run --defense {name}" in str(caught.value)
        return
    library = backstop.defense(SMALL.get(name, name))
    model = small()
    given = offered(library.needs, model)
    params = model.state_dict()
    sent = (
        library.send(params, **without(given, "params", "weights", "layers"))
        if library.sends
        else params
    )
    if "params" in given:
        given["params"] = sent
    aggregate = library.aggregate(updates_of(model, 12), **without(given, "layers", "buffers"))
    assert list(aggregate) == list(params)
    assert all(aggregate[key].shape == params[key].shape for key in params)


@pytest.mark.parametrize("name", AGGREGATING)
def test_what_a_defense_needs_it_asks_for_in_one_line(name: str) -> None:
    text = SMALL.get(name, name)
    needs = backstop.defense(text).needs
    model = small()
    updates = updates_of(model, 12)
    bare = [{key: row[key] for key in parameters(model)} for row in updates]
    flat = [torch.cat([value.flatten() for value in row.values()]) for row in bare]
    brought: dict[str, Any] = {"layers": flat, "buffers": bare}
    for missing in needs:
        library = backstop.defense(text)
        given = without(offered(needs, model), missing)
        whole = {key: model.state_dict()[key] for key in parameters(model)}
        if missing == "buffers":
            given["params"] = whole
        if missing == "layers" and "params" in given:
            given["params"] = torch.cat([value.flatten() for value in whole.values()])
        with pytest.raises(BadInput) as caught:
            if library.sends and missing != "params":
                library.send(model.state_dict(), **without(given, "params", "weights"))
            library.aggregate(brought.get(missing, updates), **without(given, "layers", "buffers"))
        assert one_line(caught.value) and name in str(caught.value)
        if not library.sends:
            assert HOW[missing] in str(caught.value)
        assert library.round == 0


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        backstop.defense("fltrust").aggregate(rows())
    assert str(caught.value) == (
        "defense fltrust needs more than updates; give params=, the global model that the round's"
        " clients started from; model=, a torch.nn.Module; root=(x, y), clean samples of the"
        " server's own; weights=, the clients' sample counts"
    )


def one_line(error: Exception) -> bool:
    return "\n" not in str(error)


def parameters(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def offered(needs: tuple[str, ...], model: nn.Module) -> dict[str, Any]:
    every = {
        "params": model.state_dict(),
        "model": model,
        "root": root(),
        "weights": [20] * 12,
        "layers": None,
        "buffers": None,
    }
    return {need: every[need] for need in needs}


def without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


# -- forms

SHAPES = {"a.weight": (2, 3), "a.bias": (3,), "b": ()}


def cut(row: Any) -> dict[str, Any]:
    """A vector of 10 values as named arrays."""
    return {
        "a.weight": row[:6].reshape(2, 3),
        "a.bias": row[6:9],
        "b": row[9].reshape(()) if isinstance(row, Tensor) else np.asarray(row[9]),
    }


FORMS: dict[str, Callable[[Any], Any]] = {
    "matrix": lambda matrix: matrix,
    "vectors": list,
    "a tuple of vectors": tuple,
    "lists": lambda matrix: [list(cut(row).values()) for row in matrix],
    "tuples": lambda matrix: [tuple(cut(row).values()) for row in matrix],
    "mappings": lambda matrix: [cut(row) for row in matrix],
    "ordered mappings": lambda matrix: [OrderedDict(cut(row)) for row in matrix],
}


def joined(aggregate: Any) -> Any:
    """The values of an aggregate in any form as one vector."""
    if isinstance(aggregate, Mapping):
        aggregate = list(aggregate.values())
    if isinstance(aggregate, list | tuple):
        aggregate = [torch.as_tensor(array).reshape(-1) for array in aggregate]
        return torch.cat(aggregate)
    return torch.as_tensor(aggregate)


@pytest.mark.parametrize("chain", ["median", "crfl(norm=3)", "weak_dp", "sparsefed"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("form", FORMS)
def test_what_comes_back_has_the_form_of_what_was_given(
    form: str, library: str, chain: str
) -> None:
    matrix = rows(8, 10)
    bare = backstop.defense(chain)
    start = matrix[0] * 0.1
    expected = bare.aggregate(matrix, params=bare.send(start))
    given: Any = FORMS[form](torch.from_numpy(matrix) if library == "torch" else matrix)
    base: Any = FORMS[form](torch.from_numpy(matrix * 0.1) if library == "torch" else matrix * 0.1)
    own = backstop.defense(chain)
    aggregate = own.aggregate(given, params=own.send(base[0]))
    assert type(aggregate) is type(given[0])
    np.testing.assert_array_equal(joined(aggregate).numpy(), expected)
    if isinstance(aggregate, Mapping):
        assert {name: tuple(value.shape) for name, value in aggregate.items()} == SHAPES
        assert list(aggregate) == list(given[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_come_back(dtype: str) -> None:
    arrays = rows().astype(dtype)
    aggregate = backstop.defense("median").aggregate([[row] for row in arrays])
    assert aggregate[0].dtype == dtype
    tensors = torch.from_numpy(rows()).to(getattr(torch, dtype))
    assert backstop.defense("median").aggregate(tensors).dtype == getattr(torch, dtype)


def test_bfloat16_and_byte_orders_come_back() -> None:
    tensors = torch.from_numpy(rows()).bfloat16()
    assert backstop.defense("median").aggregate(tensors).dtype == torch.bfloat16
    swapped = rows().astype(">f4")
    np.testing.assert_array_equal(
        backstop.defense("median").aggregate(swapped), backstop.defense("median").aggregate(rows())
    )


def test_a_sent_model_of_less_digits_is_known_again() -> None:
    library = backstop.defense("crfl")
    sent = library.send(rows()[0].astype(np.float16))
    assert sent.dtype == np.float16
    library.aggregate(rows(), params=sent)


def test_arguments_are_left_as_they_are_and_shared_with_nothing() -> None:
    updates = updates_of(small())
    before = copy.deepcopy(updates)
    aggregate = backstop.defense("centered_clipping").aggregate(
        updates, params=small().state_dict()
    )
    for value in aggregate.values():
        value.fill_(7)
    for row, old in zip(updates, before, strict=True):
        assert all(torch.equal(row[name], old[name]) for name in row)
    given = rows()
    given.flags.writeable = False
    backstop.defense("norm_clip(norm=1)+median").aggregate(given)


def test_the_callers_model_and_generators_are_left_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 3)).train()
    before = copy.deepcopy(model.state_dict())
    params = model.state_dict()
    updates = updates_of(model)
    state = torch.get_rng_state()
    first, second = (
        backstop.defense("fltrust").aggregate(
            updates, [20] * 6, params=params, model=model, root=root()
        )
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and all(torch.equal(before[key], params[key]) for key in params)
    assert all(torch.equal(first[key], second[key]) for key in params)


@pytest.mark.parametrize("form", ["state", "parameters", "vectors", "named parameters"])
def test_a_model_tells_what_each_array_is(form: str) -> None:
    model, updates = small(), updates_of(small())
    names = parameters(model)
    params = model.state_dict()
    forms: dict[str, Callable[[Mapping[str, Tensor]], Any]] = {
        "state": lambda row: [value.numpy() for value in row.values()],
        "parameters": lambda row: [row[name].numpy() for name in names],
        "vectors": lambda row: torch.cat([row[name].flatten() for name in names]).numpy(),
        "named parameters": lambda row: {name: row[name].numpy() for name in names},
    }
    expected = backstop.defense("lasa").aggregate(updates)
    read = forms[form]
    aggregate = backstop.defense("lasa").aggregate(
        [read(row) for row in updates], params=read(params), model=model
    )
    own = read(expected)
    if isinstance(own, dict):
        own, aggregate = list(own.values()), list(aggregate.values())
    for value, other in zip(list(aggregate), list(own), strict=True):
        np.testing.assert_array_equal(value, other)


def test_layers_that_share_their_weight_are_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.last = nn.Linear(3, 3, bias=False)
            self.last.weight = self.first.weight

    model = Tied()
    updates = [
        {"first.weight": torch.full((3, 3), value), "last.weight": torch.full((3, 3), value)}
        for value in (1.0, 2.0, 9.0)
    ]
    aggregate = backstop.defense("median").aggregate(updates, model=model)
    assert {name: value[0, 0].item() for name, value in aggregate.items()} == {
        "first.weight": 2.0,
        "last.weight": 2.0,
    }


# -- rounds


@pytest.mark.parametrize("chain", ["foolsgold(features=all)", "clipped_clustering", "weak_dp"])
def test_state_is_kept_pickled_copied_and_forgotten(chain: str) -> None:
    matrices = [rows(8, 12, index) for index in range(4)]
    one, other = backstop.defense(chain), backstop.defense(chain)
    straight = [one.aggregate(matrix) for matrix in matrices]
    broken = []
    for matrix in matrices:
        other = pickle.loads(pickle.dumps(copy.deepcopy(other)))
        broken.append(other.aggregate(matrix))
    np.testing.assert_array_equal(np.stack(straight), np.stack(broken))
    assert one.round == other.round == 4
    one.reset()
    assert one.round == 0 and not one.kept
    np.testing.assert_array_equal(one.aggregate(matrices[0]), straight[0])
    assert not np.array_equal(backstop.defense(chain).aggregate(matrices[3]), straight[3]), (
        "the rounds before leave no trace"
    )


def test_the_seed_names_the_draws() -> None:
    first, again, other = (
        backstop.defense("weak_dp", seed=seed).aggregate(rows()) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_clients_are_known_by_their_names_in_any_order() -> None:
    names = ["oslo", "bergen", "tromsø", "bodø", 2**63 + 5, -1]
    updates = list(rows(6))
    one, other = (backstop.defense("foolsgold(features=all)") for _ in range(2))
    for index in range(3):
        order = draws("names", index).permutation(6)
        expected = one.aggregate(updates, clients=names)
        shuffled = [updates[place] for place in order]
        aggregate = other.aggregate(shuffled, clients=[names[place] for place in order])
        np.testing.assert_array_equal(aggregate, expected)
    assert set(one.kept) == set(names) and one.kept == other.kept


def test_a_round_that_fails_leaves_all_as_it_was() -> None:
    library = backstop.defense("clipped_clustering")
    library.aggregate(rows())
    before = pickle.dumps(library)
    with pytest.raises(BadInput):
        library.aggregate(rows(d=13))
    assert pickle.dumps(library) == before


def test_a_round_without_a_finite_update_changes_nothing() -> None:
    library = backstop.defense("norm_clip(norm=1)+centered_clipping")
    params = np.zeros(12, np.float32)
    nothing = library.aggregate(rows() * np.nan, params=params)
    np.testing.assert_array_equal(nothing, np.zeros(12))
    assert library.round == 1 and set(library.kept.values()) == {0.0}
    library.aggregate(rows(), params=params)


def test_a_model_can_be_sent_again_before_its_updates_come() -> None:
    library = backstop.defense("crfl")
    first = library.send(rows()[0])
    np.testing.assert_array_equal(library.send(rows()[0]), first)
    library.aggregate(rows(), params=first)
    assert not np.array_equal(library.send(rows()[0]), first)  # another round's noise


def test_the_number_of_threads_and_inference_mode_change_nothing() -> None:
    updates, params, model = updates_of(small()), small().state_dict(), small()

    def aggregate() -> dict[str, Tensor]:
        made: dict[str, Tensor] = backstop.defense("fltrust+norm_clip(norm=1)").aggregate(
            updates, [20] * 6, params=params, model=model, root=root()
        )
        return made

    expected, threads = aggregate(), torch.get_num_threads()
    with torch.inference_mode():
        inside = aggregate()
    assert torch.get_num_threads() == threads
    assert all(torch.equal(inside[name], expected[name]) for name in expected)


# -- what cannot be

NAN = float("nan")
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a name": (lambda: backstop.defense("medain"), "did you mean 'median'"),
    "a parameter": (lambda: backstop.defense("krum(g=2)"), "unknown parameter 'g'"),
    "a range": (lambda: backstop.defense("norm_clip(norm=-1)"), "norm=-1"),
    "a chain": (lambda: backstop.defense("median+krum"), "put krum first"),
    "no chain": (lambda: backstop.defense(None), "defense: None is no stage"),  # type: ignore[arg-type]
    "a pair": (
        lambda: backstop.defense(("krum", {"f": 2})),  # type: ignore[arg-type]
        "{'f': 2} is no stage",
    ),
    "a seed": (lambda: backstop.defense("median", seed=-1), "defense: seed=-1 is not allowed"),
    "an optimizer": (lambda: backstop.defense("fltrust", optimizer="sdg"), "did you mean 'sgd'"),
    "nothing": (lambda: backstop.defense("median").aggregate([]), "updates is empty"),
    "None": (lambda: backstop.defense("median").aggregate(None), "updates is NoneType"),
    "text": (lambda: backstop.defense("median").aggregate("abc"), "updates is str"),
    "one vector": (
        lambda: backstop.defense("median").aggregate(rows()[0]),
        "updates is one array of shape (12,)",
    ),
    "one mapping": (
        lambda: backstop.defense("median").aggregate(updates_of(small())[0]),
        "updates is one mapping",
    ),
    "numbers": (
        lambda: backstop.defense("median").aggregate([[1.0, 2.0]]),
        "updates[0][0] is float",
    ),
    "pairs": (
        lambda: backstop.defense("median").aggregate([([rows()[0]], 10)]),
        "updates[0][0] is list",
    ),
    "matrices": (
        lambda: backstop.defense("median").aggregate([rows(), rows()]),
        "updates[0] is one array of shape (8, 12)",
    ),
    "integers": (
        lambda: backstop.defense("median").aggregate(np.ones((3, 4), np.int64)),
        "updates[0] is of int64",
    ),
    "only integers": (
        lambda: backstop.defense("median").aggregate([[np.ones(3, np.int64)]]),
        "no floating-point array",
    ),
    "complex numbers": (
        lambda: backstop.defense("median").aggregate([{"w": np.ones(3, np.complex64)}]),
        "updates[0]['w'] is of complex64",
    ),
    "no values": (
        lambda: backstop.defense("median").aggregate(np.ones((3, 0))),
        "updates hold no value at all",
    ),
    "unequal lengths": (
        lambda: backstop.defense("median").aggregate([np.ones(3), np.ones(4)]),
        "updates[1] has shape (4,), that of updates[0] (3,)",
    ),
    "fewer layers": (
        lambda: backstop.defense("median").aggregate([[np.ones(3)] * 2, [np.ones(3)]]),
        "updates[1] holds 1 arrays, updates[0] holds 2",
    ),
    "a wrong name": (
        lambda: backstop.defense("median").aggregate([{"ab": np.ones(3)}, {"ac": np.ones(3)}]),
        "updates[1] has no array 'ab'",
    ),
    "one name more": (
        lambda: backstop.defense("median").aggregate(
            [{"ab": np.ones(3)}, {"ab": np.ones(3), "abc": np.ones(3)}]
        ),
        "updates[1] has an array 'abc', updates[0] has none; did you mean 'ab'?",
    ),
    "mixed forms": (
        lambda: backstop.defense("median").aggregate([np.ones(3), [np.ones(3)]]),
        "updates[1] is a list of arrays, updates[0] is a flat vector",
    ),
    "mixed libraries": (
        lambda: backstop.defense("median").aggregate([np.ones(3), torch.ones(3)]),
        "updates[1] is a torch tensor, that of updates[0] is a NumPy array",
    ),
    "weights": (
        lambda: backstop.defense("median").aggregate(rows(), [1, 2]),
        "weights has shape (2,) for 8 updates",
    ),
    "no weight": (
        lambda: backstop.defense("median").aggregate(rows(2), [1, 0]),
        "weights[1]=0 is not allowed",
    ),
    "a weight of NaN": (
        lambda: backstop.defense("median").aggregate(rows(2), [NAN, 1]),
        "weights[0]=nan is not allowed",
    ),
    "weights in words": (
        lambda: backstop.defense("median").aggregate(rows(1), ["many"]),
        "give the sample count of each client",
    ),
    "ids": (
        lambda: backstop.defense("median").aggregate(rows(2), clients=[1]),
        "clients holds 1 ids for 2 updates",
    ),
    "an id twice": (
        lambda: backstop.defense("median").aggregate(rows(2), clients=["a", "a"]),
        "clients holds 'a' 2 times",
    ),
    "an id of no kind": (
        lambda: backstop.defense("median").aggregate(rows(2), clients=[0, 1.5]),
        "clients holds 1.5",
    ),
    "the form of params": (
        lambda: backstop.defense("flanders").aggregate(rows(), params=[np.ones(12)]),
        "params is a list of arrays, updates[0] is a flat vector",
    ),
    "the length of params": (
        lambda: backstop.defense("flanders").aggregate(rows(), params=np.ones(11)),
        "params has shape (11,), that of updates[0] (12,)",
    ),
    "params that are not finite": (
        lambda: backstop.defense("flanders").aggregate(rows(), params=np.full(12, NAN)),
        "params holds a NaN",
    ),
    "a model": (
        lambda: backstop.defense("flare").aggregate(rows(), model="resnet"),
        "model is str",
    ),
    "another model": (
        lambda: backstop.defense("flare").aggregate(rows(), model=small()),
        "updates are vectors of 12 values; the model has 63 parameters",
    ),
    "arrays of another model": (
        lambda: backstop.defense("flare").aggregate([[row] for row in rows()], model=small()),
        "updates hold 1 arrays; the model has 6 parameters, and its state dict 9 entries",
    ),
    "names of another model": (
        lambda: backstop.defense("flare").aggregate([{"first.wieght": rows()}], model=small()),
        "lack the model's parameter 'first.weight'; did you mean 'first.wieght'?",
    ),
    "a root set": (
        lambda: backstop.defense("flare").aggregate(rows(), root=root()[0]),
        "root is Tensor; give (x, y)",
    ),
    "a root set without labels": (
        lambda: backstop.defense("flare").aggregate(rows(), root=(root()[0], root()[1][:3])),
        "root: x has shape (60, 4), y (3,)",
    ),
    "labels of another model": (
        lambda: backstop.defense("fltrust").aggregate(
            updates_of(small()), model=small(), root=(root()[0], root()[1] + 5)
        ),
        "root holds the label 7; the model has 3 outputs",
    ),
    "a root set of another model": (
        lambda: backstop.defense("fltrust").aggregate(
            updates_of(small()), model=small(), root=(torch.ones(3, 5), torch.arange(3))
        ),
        "model cannot take root's x of shape (3, 5): RuntimeError: ",
    ),
    "a round that nothing was sent in": (
        lambda: backstop.defense("crfl").aggregate(rows(), params=rows()[0]),
        "begin each round with sent = defense.send(params)",
    ),
    "params of None": (
        lambda: backstop.defense("median").aggregate_models(rows(), params=None),
        "aggregate_models needs params=",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_clear_line(case: str) -> None:
    call, words = WRONG[case]
    with pytest.raises(BadInput) as caught:
        call()
    assert words in str(caught.value)
    assert one_line(caught.value)


def test_another_model_than_the_one_sent_is_refused() -> None:
    library = backstop.defense("crfl")
    library.send(rows()[0])
    with pytest.raises(BadInput, match="params is not the model that send"):
        library.aggregate(rows(), params=rows()[0])


def test_clients_that_are_followed_need_ids_where_their_number_changes() -> None:
    library = backstop.defense("norm_clip+foolsgold(features=all)")
    library.aggregate(rows(5))
    with pytest.raises(BadInput, match="has 6 updates without ids, the one before had 5"):
        library.aggregate(rows(6))
    with pytest.raises(BadInput, match="has ids, the one before had 5 updates without ids"):
        library.aggregate(rows(5), clients=range(5))
    plain = backstop.defense("median")
    plain.aggregate(rows(5))
    plain.aggregate(rows(6))


def test_a_stage_that_fails_is_named_with_its_round() -> None:
    class Lazy(Small):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise OSError("no luck")
            return super().forward(x)

    library = backstop.defense("fltrust")
    given = {"params": small().state_dict(), "model": Lazy(), "root": root()}
    with pytest.raises(BrokenStage, match="defense fltrust: round 1: OSError: no luck") as caught:
        library.aggregate(updates_of(small()), [20] * 6, **given)
    assert one_line(caught.value) and library.round == 0


def test_a_defense_says_what_it_is() -> None:
    library = backstop.defense("krum(f=2)+weak_dp", seed=4, optimizer="adam")
    assert repr(library).startswith(
        "backstop.defense('krum(f=2)+weak_dp', seed=4, optimizer='adam("
    )
    library.aggregate(rows())
    assert repr(library).endswith("# 1 round")
    assert repr(backstop.defense([])) == "backstop.defense('fedavg')  # 0 rounds"
    parts: list[Part | str] = [Part("norm_clip", {"norm": 1}), "median"]
    assert (
        repr(backstop.defense(parts)) == "backstop.defense('norm_clip(norm=1)+median')  # 0 rounds"
    )


# -- triggers


def images(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return draws("images", *shape).random(shape).astype(np.float32)


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_has_the_bits_of_the_platforms(name: str) -> None:
    run = federation("median", attack=f"{name}")
    test = run.built.data.test.x
    expected = run.probe().triggered
    assert expected is not None
    stamp = pickle.loads(pickle.dumps(backstop.trigger(name, seed=run.spec.seed)))
    clean = to_unit_interval(test)
    before = clean.clone()
    assert torch.equal(stamp(clean), to_unit_interval(expected.x))
    assert torch.equal(clean, before)


@pytest.mark.parametrize("name", plugins.names("attacks"))
def test_every_attack_stamps_or_says_why_not(name: str) -> None:
    if plugins.kinds("attacks", name) == ("text",) and "edge" not in name:
        documents = np.array([[5, 6, 0, 0], [7, 8, 9, 3]])
        triggered = backstop.trigger(f"{name}(words=40-41)")(documents)
        np.testing.assert_array_equal(triggered, [[40, 41, 5, 6], [40, 41, 7, 8]])
        return
    try:
        stamp = backstop.trigger(name)
    except BadInput as error:
        assert one_line(error) and str(error).startswith(f"attack {name} ")
        assert "triggers to stamp: badnets, " in str(error)
        assert name not in str(error).partition("triggers to stamp: ")[2].split(", ")
        return
    if plugins.kinds("attacks", name) == ("table",):
        own = draws("table").normal(size=(30, 5)).astype(np.float32), np.arange(30) % 2
        with pytest.raises(BadInput, match=r"give data=\(x, y\)"):
            stamp(own[0])
        triggered = backstop.trigger(name, data=own)(own[0])
        assert triggered.shape == own[0].shape and (triggered != own[0]).any()
        return
    clean = images(3, 3, 16, 16)
    triggered = stamp(clean)
    assert triggered.shape == clean.shape and triggered.dtype == clean.dtype
    assert (triggered != clean).any() and triggered.min() >= 0 and triggered.max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", ["first", "last"])
def test_images_come_back_as_they_were_given(dtype: Any, channels: Any) -> None:
    clean = images(2, 3, 8, 8)
    whole = np.round(clean * 255)
    given = whole.astype(dtype) if dtype is np.uint8 else (whole / 255).astype(dtype)
    if channels == "last":
        given = given.transpose(0, 2, 3, 1)
    stamp = backstop.trigger("badnets(size=2)", channels=channels)
    for form in (given, torch.from_numpy(given.copy())):
        triggered = stamp(form)
        assert type(triggered) is type(form) and triggered.dtype == form.dtype
        changed = np.asarray(triggered != form)
        changed = changed.transpose(0, 3, 1, 2) if channels == "last" else changed
        corner = np.zeros_like(changed)
        corner[..., 5:7, 5:7] = True
        assert not (changed & ~corner).any()
        top = 255 if dtype is np.uint8 else 1
        shown = np.asarray(triggered)
        shown = shown.transpose(0, 3, 1, 2) if channels == "last" else shown
        assert (shown[..., 5:7, 5:7] == top).all()


def test_rare_words_are_those_of_the_attackers_documents() -> None:
    vocabulary = {"plain": 1, "usual": 2, "rare": 3}
    own = (np.array([[1, 2, 1], [2, 1, 3]]), np.array([0, 1]))
    stamp = backstop.trigger("phrase", data=own, vocabulary=vocabulary)
    assert set(stamp(np.array([[1, 1, 0, 0]]))[0]) <= {0, 1, 2, 3}
    with pytest.raises(BadInput, match="nearest word is 'usual'"):
        backstop.trigger("phrase(words=ussual)", vocabulary=vocabulary)(own[0])


WRONG_INPUTS: dict[str, tuple[Callable[[], object], str]] = {
    "a name": (lambda: backstop.trigger("badnet"), "did you mean 'badnets'"),
    "no stage": (lambda: backstop.trigger(None), "trigger: None is no stage"),  # type: ignore[arg-type]
    "a chain": (lambda: backstop.trigger("badnets+pgd"), "names 2 plug-ins"),
    "channels": (
        lambda: backstop.trigger("badnets", channels="middle"),  # type: ignore[arg-type]
        "channels='middle'",
    ),
    "a seed": (lambda: backstop.trigger("badnets", seed=-2), "trigger: seed=-2"),
    "no array": (lambda: backstop.trigger("badnets")([[0.0]]), "list is no array"),
    "one image": (
        lambda: backstop.trigger("badnets")(images(3, 8, 8)),
        "inputs of shape (3, 8, 8); images are (n, channels, h, w)",
    ),
    "no image": (lambda: backstop.trigger("badnets")(images(0, 3, 8, 8)), "(0, 3, 8, 8)"),
    "channels last": (
        lambda: backstop.trigger("badnets")(images(2, 8, 8, 3)),
        "seem to have their channels last",
    ),
    "normalized images": (
        lambda: backstop.trigger("badnets")(images(2, 3, 8, 8) * 4 - 2),
        "stamp them before they are normalized",
    ),
    "images of NaN": (
        lambda: backstop.trigger("badnets")(images(2, 3, 8, 8) * np.nan),
        "they are floats in [0, 1] or uint8",
    ),
    "whole numbers": (
        lambda: backstop.trigger("badnets")(np.ones((2, 3, 8, 8), np.int64)),
        "images of torch.int64",
    ),
    "data": (lambda: backstop.trigger("feature_value", data=3), "trigger: data is int"),  # type: ignore[arg-type]
    "data without labels": (
        lambda: backstop.trigger("feature_value", data=(np.ones((3, 2)), np.ones(3))),
        "y holds n labels, whole numbers",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_a_trigger_that_cannot_be_is_one_clear_line(case: str) -> None:
    call, words = WRONG_INPUTS[case]
    with pytest.raises(BadInput) as caught:
        call()
    assert words in str(caught.value)
    assert one_line(caught.value)


# -- the package


def test_neither_starts_anything_heavy() -> None:
    script = (
        "import sys, numpy, backstop\n"
        "assert 'torch' not in sys.modules\n"
        "backstop.defense('norm_clip(norm=1)+median').aggregate(numpy.eye(5, dtype='float32'))\n"
        "backstop.trigger('badnets')(numpy.zeros((1, 1, 8, 8), 'float32'))\n"
        "heavy = {'ray', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'torchvision'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_page_does_what_it_says() -> None:
    assert len(BLOCKS) >= 5
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/library.md", "exec"), names)
    assert isinstance(names["aggregate"], np.ndarray | list | dict)
