"""Splits by number of labels, by size and by noise; who is malicious by size; how unequal all that
is, and where it shows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backstop.platform import cli
from backstop.platform.contract import Data, Part, Samples, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.results.figures.cells import Entry
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.results.report.page import page
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tables.splits import split_lines
from backstop.platform.rounds.finals import final
from backstop.platform.specs.spec import spec_from_json, spec_to_json, validate
from backstop.platform.training import loading
from backstop.platform.training.partition import deal, malicious_clients
from backstop.platform.training.skew import counts_of, input_distances, skew_of
from backstop.platform.training.splits import noisy, power_law

NOWHERE = Path("unused")
SPEC = Spec(
    clients=10,
    per_round=4,
    malicious=0.2,
    rounds=1,
    batch=16,
    block=4,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.1}),
)


def toy(total: int = 600, classes: int = 6) -> Data:
    x = torch.randn(total, 3, generator=torch.Generator().manual_seed(1))
    y = torch.arange(total) % classes
    return Data(Samples(x, y), Samples(x[:6], y[:6]), classes=classes, kind="table")


def labels_of(shards: Sequence[Tensor], y: Tensor) -> list[set[int]]:
    return [set(y[shard].tolist()) for shard in shards]


@settings(max_examples=40)
@given(clients=st.integers(1, 30), classes=st.integers(2, 8), each=st.integers(1, 8))
def test_each_client_has_so_many_labels(clients: int, classes: int, each: int) -> None:
    data = toy(600, classes)

    def dealt(seed: int) -> list[Tensor]:
        return deal(data, clients=clients, alpha="labels", labels_each=each, seed=seed)

    if each > classes or clients * each < classes:
        with pytest.raises(BadInput, match=rf"labels_each={each} (is not allowed|leaves)"):
            dealt(0)
        return
    shards = dealt(0)
    assert torch.equal(torch.cat(shards).sort().values, torch.arange(600))
    held = labels_of(shards, data.train.y)
    assert {len(labels) for labels in held} == {each}
    owners = [sum(label in labels for labels in held) for label in range(classes)]
    assert max(owners) - min(owners) <= 1
    of_label = [
        [int((data.train.y[shard] == label).sum()) for shard in shards] for label in range(classes)
    ]
    for counts in of_label:
        owned = [count for count in counts if count]
        assert max(owned) - min(owned) <= 1


def test_the_seed_decides_who_has_which_labels() -> None:
    data = toy()
    held = [
        labels_of(deal(data, clients=12, alpha="labels", seed=seed), data.train.y)
        for seed in (0, 0, 1)
    ]
    assert held[0] == held[1] != held[2]
    assert len({frozenset(labels) for labels in held[0]}) > 3  # not always the same pairs


def test_a_label_with_fewer_samples_than_owners_is_refused() -> None:
    data = toy(12)
    with pytest.raises(BadInput, match=r"labels_each=3 gives label 0 to 3 of clients=6.* 2 sam"):
        deal(data, clients=6, alpha="labels", labels_each=3, seed=0)


def test_labels_that_nobody_has_do_not_count() -> None:
    data = toy()._replace(classes=9)
    shards = deal(data, clients=3, alpha="labels", labels_each=6, seed=0)
    assert labels_of(shards, data.train.y) == [set(range(6))] * 3


@settings(max_examples=60)
@given(
    clients=st.integers(1, 40), spare=st.integers(0, 500), exponent=st.sampled_from([0, 0.7, 2, 10])
)
def test_sizes_follow_the_power_law(clients: int, spare: int, exponent: float) -> None:
    sizes = power_law(clients + spare, clients, exponent)
    assert sum(sizes) == clients + spare
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] >= 1
    weights = np.arange(1, clients + 1, dtype=float) ** -exponent
    exact = 1 + spare * weights / weights.sum()
    assert np.abs(np.array(sizes[1:]) - exact[1:]).max(initial=0) <= 1
    assert sizes[0] - exact[0] <= clients


def test_sizes_have_nothing_to_do_with_labels_and_their_order_is_drawn() -> None:
    data = toy(6000)

    def dealt(seed: int) -> list[Tensor]:
        return deal(data, clients=8, alpha="sizes", size_exponent=1.0, seed=seed)

    first, other = dealt(0), dealt(1)
    assert torch.equal(torch.cat(first).sort().values, torch.arange(6000))
    assert sorted(map(len, first), reverse=True) == power_law(6000, 8, 1.0)
    assert list(map(len, first)) != list(map(len, other))
    assert skew_of(counts_of(first, data.train.y, 6)).label_most < 0.1


def test_a_number_that_the_split_does_not_read_is_refused() -> None:
    for changes, words in (
        ({"labels_each": 3}, "labels_each=3 is for alpha=labels, and alpha=0.5"),
        ({"alpha": "labels", "size_exponent": 2.0}, "size_exponent=2.0 is for alpha=sizes"),
        ({"alpha": None, "labels_each": 3}, "and alpha=None"),
    ):
        with pytest.raises(BadInput, match=words):
            validate(SPEC.replace(**changes))
    assert validate(SPEC.replace(alpha="labels", labels_each=3)).labels_each == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": "labels"},
        {"alpha": "sizes", "size_exponent": 2.0},
        {"input_noise": 0.3},
        {"malicious_by": "fewest"},
    ],
)
def test_fields_are_written_only_where_they_say_something(changes: dict[str, Any]) -> None:
    spec = validate(SPEC.replace(**changes))
    younger = ("labels_each", "size_exponent", "input_noise", "malicious_by")
    assert not set(younger) & set(spec_to_json(validate(SPEC)))
    written = spec_to_json(spec)
    assert {key for key in younger if key in written} == set(changes) - {"alpha"}
    assert spec_from_json(written) == spec
    figures = final(list(run(spec, folder=NOWHERE, device="cpu")))
    assert figures["final/diverged"] == 0


def test_noise_grows_from_the_first_client_to_the_last() -> None:
    data = toy(30_000)
    data = data._replace(train=Samples(data.train.x * torch.tensor([1.0, 5.0, 0.0]), data.train.y))
    shards = deal(data, clients=5, alpha=None, seed=0)
    before = data.train.x.clone()
    made = noisy(data, shards, noise=0.4, seed=0)
    assert torch.equal(data.train.x, before) and made.test is data.test
    added = made.train.x - before
    assert not added[shards[0]].any() and not added[:, 2].any()
    for client, shard in enumerate(shards):
        measured = added[shard].std(0)[:2] / before.std(0)[:2]
        torch.testing.assert_close(measured, torch.full((2,), 0.1 * client), rtol=0.03, atol=1e-6)
    assert input_distances(made.train.x, shards).argmax() == 4


def test_noise_on_images_stays_in_range() -> None:
    built = Experiment(SPEC.replace(input_noise=0.5), NOWHERE, "cpu").built
    plain = Experiment(SPEC, NOWHERE, "cpu").built
    x, clean = built.data.train.x, plain.data.train.x.float()
    clean = clean / 255 if plain.data.train.x.dtype == torch.uint8 else clean
    assert x.dtype == torch.float32 and float(x.min()) == 0 and float(x.max()) == 1
    assert torch.equal(x[built.shards[0]], clean[built.shards[0]])
    assert not torch.equal(x[built.shards[9]], clean[built.shards[9]])
    assert torch.equal(built.data.test.x, plain.data.test.x)
    assert built.data.root is not None and plain.data.root is not None
    assert torch.equal(built.data.root.x, plain.data.root.x)


def test_what_noise_cannot_be_put_on() -> None:
    with pytest.raises(BadInput, match="text has no noise"):
        spec = SPEC.replace(dataset=Part("topics"), model=Part("bag_of_words"), input_noise=0.1)
        Experiment(spec, NOWHERE, "cpu")
    with pytest.raises(BadInput, match="clients=1 is one"):
        Experiment(SPEC.replace(clients=1, per_round=1, input_noise=0.1), NOWHERE, "cpu")


def test_malicious_by_the_number_of_samples() -> None:
    sizes = [5, 1, 9, 1, 7, 1]
    few = malicious_clients(6, 1 / 3, 0, by="fewest", sizes=sizes)
    assert set(few.tolist()) < {1, 3, 5} and len(few) == 2
    assert malicious_clients(6, 1 / 3, 0, by="most", sizes=sizes).tolist() == [2, 4]
    drawn = {
        tuple(malicious_clients(6, 1 / 3, seed, by="fewest", sizes=sizes).tolist())
        for seed in range(20)
    }
    assert len(drawn) == 3  # equals are drawn
    built = Experiment(
        SPEC.replace(alpha="sizes", malicious=0.1, malicious_by="fewest"), NOWHERE, "cpu"
    ).built
    assert built.sizes[int(built.malicious)] == min(built.sizes)


def test_distances_of_inputs_are_those_of_numpy() -> None:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(5000, 4))
    x[:, 3] = 7.5  # says nothing
    x[:2000, 0] += 2
    shards = [torch.arange(2000), torch.arange(2000, 5000)]
    away = []
    for shard in shards:
        own = x[shard.numpy(), :3]
        shift = own.mean(0) - x[:, :3].mean(0)
        spread = own.std(0) - x[:, :3].std(0)
        away.append(sqrt(((shift**2 + spread**2) / x[:, :3].var(0)).mean()))
    found = input_distances(torch.from_numpy(x), shards)
    np.testing.assert_allclose(found.numpy(), away, rtol=1e-9)
    pictures = torch.from_numpy(x).reshape(-1, 1, 2, 2)
    for shard, measured in zip(shards, input_distances(pictures, shards).tolist(), strict=True):
        own = x[shard.numpy()]
        moved = ((own.mean(0) - x.mean(0)) ** 2 + (own.std(0) - x.std(0)) ** 2).sum()
        assert measured == pytest.approx(sqrt(moved / x.var(0).sum()))
    assert not input_distances(torch.ones(4, 2), [torch.arange(2), torch.arange(2, 4)]).any()


def test_by_chance_alone_it_is_about_what_is_said() -> None:
    x = torch.randn(20_000, 30, generator=torch.Generator().manual_seed(0))
    shards = list(torch.arange(20_000).split(200))
    assert float(input_distances(x, shards).mean()) == pytest.approx(sqrt(1.5 / 200), rel=0.05)


def told(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["data", "digits", *arguments]) == 0
    return capsys.readouterr().out


def test_backstop_data_shows_each_split(capsys: pytest.CaptureFixture[str]) -> None:
    by_labels = told("--clients", "5", "--alpha", "labels", "--labels-each", "3", capsys=capsys)
    assert "5 clients (3 labels each, seed 0)" in by_labels
    assert "labels: a client's differ from the whole by 0.7" in by_labels
    sizes = told("--clients", "5", "--alpha", "sizes", "--size-exponent", "2", capsys=capsys)
    assert "5 clients (sizes by a power law of exponent 2, seed 0)" in sizes
    assert "standard deviations; dealt at random 0." in sizes
    noise = told("--clients", "4", "--alpha", "none", "--input-noise", "0.5", capsys=capsys)
    assert "4 clients (IID, input noise up to 0.5, seed 0)" in noise
    document = json.loads(told("--clients", "4", "--alpha", "none", "--json", capsys=capsys))
    skew = document[0]["split"]["skew"]
    assert skew["input_mean"] == pytest.approx(skew["input_chance"], rel=0.2)  # IID is no more
    assert cli.main(["data", "digits", "--labels-each", "3"]) == 2
    assert "labels_each=3 is for alpha=labels" in capsys.readouterr().err


def test_a_board_shows_how_unequal_the_clients_are() -> None:
    spec = SPEC.replace(alpha="sizes", size_exponent=2.0)
    runs = []
    for seed in (0, 1):
        one = validate(spec.replace(seed=seed))
        figures = final(list(run(one, folder=NOWHERE, device="cpu")))
        runs.append(Entry(one.id, spec_to_json(one), figures))
    document = build_document(runs, "unequal")
    (split,) = document["splits"].values()
    assert split["seeds"] == [0, 1]
    ratio = np.mean([entry.metrics["final/size_ratio"] for entry in runs])
    assert split["size_ratio"] == pytest.approx(ratio)
    (line,) = split_lines(document)
    assert line.dealt == "sizes by a power law of exponent 2" and line.clients == "10"
    for text in (markdown(document), page(document, [])):
        assert "How unequal the clients are" in text
        assert line.dealt in text and f"{ratio:.3g}" in text
    older = [entry._replace(metrics={"final/clean_accuracy": 0.5}) for entry in runs]
    assert "How unequal" not in markdown(build_document(older, "older"))


def test_a_run_tells_what_backstop_data_shows() -> None:
    spec = SPEC.replace(alpha="labels", rounds=1)
    (record,) = run(spec, folder=NOWHERE, device="cpu")
    data = loading.load_dataset(spec.dataset, NOWHERE)
    built = Experiment(spec, NOWHERE, "cpu").built
    skew = skew_of(counts_of(built.shards, data.train.y, data.classes))
    assert record.metrics["run/label_skew"] == skew.label_mean
    assert record.metrics["run/size_ratio"] == skew.ratio
    away = float(input_distances(data.train.x, built.shards).mean())
    assert record.metrics["run/input_skew"] == away
