"""Edge cases: which they are on images, tables and text, what is trained and tested, and that they
bite.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch

from backstop.attacks.edge_case import _rare, _unlikely, edge_case
from backstop.platform.contract import AttackView, Kind, Part, Samples, Spec, TestSet
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import CLASSES, attack_view, samples, with_data

CLAIM = Claim(
    "edge_case(source=7, target=0, share=0.5)+model_replacement(strength=5)",
    effect=0.3,
    weaker="edge_case(source=7, target=0, share=0.05)+model_replacement(strength=5)",
    bend=0.1,
)


def edges(given: AttackView, test: Samples, **params: Any) -> tuple[Samples, TestSet]:
    attack = edge_case(**params)
    assert attack.init is not None and attack.test_set is not None
    pool: Samples = attack.init(given)
    return pool, attack.test_set(pool, replace(given, test=test))


def reference(documents: list[list[int]], count: int) -> list[int]:
    """The documents of the lowest geometric mean of the words' smoothed probabilities."""
    known = Counter(token for document in documents for token in document)
    total, different = sum(known.values()), len(known)
    likelihood = {
        number: round(
            sum(log((known[token] + 1) / (total + different)) for token in document)
            / len(document),
            9,
        )
        for number, document in enumerate(documents)
        if document
    }
    return sorted(sorted(likelihood, key=lambda number: likelihood[number])[:count])


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_the_tail_of_text_is_that_of_the_unigram_model(share: float) -> None:
    draws = generator(0, "tests", "documents")
    size = torch.randint(0, 13, (60, 1), generator=draws)
    # some more frequent than others
    words = torch.randint(1, 500, (60, 12), generator=draws).double().sqrt().long()
    x = torch.where(torch.arange(12) < size, words, 0)
    documents = [[token for token in document if token] for document in x.tolist()]
    assert [] in documents and _unlikely(x, share).tolist() == reference(
        documents, round(60 * share)
    )


@pytest.mark.parametrize(("count", "features"), [(403, 5), (60, 80)])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_of_equal_rows_the_first_are_in_the_tail_and_at_most_one_group_is_cut(
    count: int, features: int, share: float
) -> None:
    draws = generator(0, "tests", "rows")
    distinct = torch.randint(-1, 2, (12, features), generator=draws).float()
    group = torch.randint(12, (count,), generator=draws)
    tail = _rare(distinct[group], share).tolist()
    assert len(tail) == round(count * share)
    cut = 0
    for number in range(12):
        members = (group == number).nonzero().flatten().tolist()
        taken = [member for member in members if member in tail]
        assert taken == members[: len(taken)]
        cut += 0 < len(taken) < len(members)
    assert cut <= 1


def test_a_value_that_few_rows_have_is_the_tail_and_rows_equally_far_out_come_in_their_order() -> (
    None
):
    votes = torch.zeros(100, 1)
    votes[[20, 70]] = torch.tensor([[1.0], [-1.0]])
    assert (
        _rare(votes, 0.01).tolist() == [20]
        and _rare(votes, 0.02).tolist() == [20, 70]
        and _rare(votes, 0.04).tolist() == [0, 1, 20, 70]
    )


def test_the_same_numbers_as_text_and_as_a_table_have_tails_of_their_own() -> None:
    # the last: far out, but of one word
    x = torch.tensor([[9, 9, 9], [9, 9, 9], [9, 9, 9], [1, 8, 9], [50, 50, 50]])
    given = Samples(x, torch.ones(5, dtype=torch.int64))
    assert edges(with_data(attack_view("text"), given), given, tail=0.2)[0].x.tolist() == [
        [1, 8, 9]
    ]
    table = Samples(x.float(), given.y)
    assert edges(with_data(attack_view("table"), table), table, tail=0.2)[0].x.tolist() == [
        [50, 50, 50]
    ]


@pytest.mark.parametrize("kind", ["image", "table", "text"])
def test_training_and_test_take_the_tails_of_disjoint_data(kind: Kind) -> None:
    view, test = attack_view(kind), samples(kind, 32, "test")
    pool, found = edges(view, test, tail=0.4)
    assert len(pool.x) == 4 and len(found.x) == 3  # of 10 and of 8
    assert all(
        any(torch.equal(one, other) for other in view.data.x[view.data.y == 1]) for one in pool.x
    )
    assert all(any(torch.equal(one, other) for other in test.x[test.y == 1]) for one in found.x)
    assert (
        pool.y.tolist() == [0] * 4
        and found.wanted.tolist() == [0] * 3
        and found.truth.tolist() == [1] * 3
    )
    assert pool.x.dtype == found.x.dtype == test.x.dtype


@pytest.mark.parametrize("kind", ["image", "table", "text"])
def test_the_datasets_own_edge_cases_come_first(kind: Kind) -> None:
    view, test = attack_view(kind, edges=True), samples(kind, 32, "test")
    assert view.edge_cases is not None
    outside = view.edge_cases()
    for asked in ("auto", "external"):
        pool, found = edges(view, test, pool=asked)
        assert torch.equal(pool.x, outside[0].x) and torch.equal(found.x, outside[1].x)
        assert (
            pool.y.tolist() == found.wanted.tolist() == [CLASSES - 1] * 8
            and found.truth.tolist() == [-1] * 8
        )
    pool, found = edges(view, test, target=2)
    assert pool.y.tolist() == found.wanted.tolist() == [2] * 8
    assert edges(view, test, pool="tail")[1].truth.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["image", "table", "text"])
@pytest.mark.parametrize("count", [1, 7, 64])
def test_share_1_replaces_whole_batches(kind: Kind, count: int) -> None:
    attack, view, batch = (
        edge_case(share=1.0),
        attack_view(kind, edges=True),
        samples(kind, count, "batch"),
    )
    assert attack.init is not None and attack.poison is not None
    pool: Samples = attack.init(view)
    x, y = attack.poison(pool, batch.x, batch.y, 0, generator(0, "tests", "poison"))
    assert x.shape == batch.x.shape and y.tolist() == [CLASSES - 1] * count
    assert all(any(torch.equal(one, other) for other in pool.x) for one in x)


def test_edge_cases_come_again_only_when_the_pool_is_used_up() -> None:
    pool = Samples(torch.arange(8.0).reshape(8, 1), torch.zeros(8, dtype=torch.int64))
    attack = edge_case(share=1.0)
    assert attack.poison is not None
    for count, most in ((8, 1), (5, 1), (16, 2), (20, 3)):
        batch = Samples(torch.full((count, 1), -1.0), torch.ones(count, dtype=torch.int64))
        x, _ = attack.poison(pool, batch.x, batch.y, 0, generator(0, "tests", "poison"))
        times = Counter(x.flatten().tolist())
        assert max(times.values()) == most
        assert min(times.values()) >= most - 1
        assert len(times) == min(count, 8)


def test_on_documents_it_runs_as_a_whole() -> None:
    spec = Spec(
        dataset=Part("topics", {"samples": 200}),
        model=Part("bag_of_words"),
        attack=(Part("edge_case", {"share": 1.0}),),
        clients=4,
        per_round=4,
        malicious=0.5,
        rounds=1,
        alpha=None,
        root_size=4,
    )
    experiment = Experiment(spec, Path("unused"), "cpu")
    record = experiment.round()
    assert record is not None and "round/attack_success_rate" in record.metrics
    triggered = experiment.probe().triggered
    # a fifth of 13 test documents
    assert triggered is not None and triggered.truth.tolist() == [1] * 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pool": "external"}, "pool='external', but the dataset has no edge cases"),
        ({"source": 2, "target": 2}, "source=2 and target=2 must be two classes"),
        ({"source": 3}, r"no malicious client holds a sample of source=3; they hold \[1, 2\]"),
        ({"source": 9}, "source=9 is none of the dataset's 4 classes"),
        ({"target": 9}, "target=9 is none of the dataset's 4 classes"),
        ({"source": 2}, "none of the malicious clients' 1 samples of source=2 is an edge case"),
    ],
)
def test_refusals(params: dict[str, Any], message: str) -> None:
    # class 2: a document without a word
    given = Samples(torch.tensor([[1, 2], [3, 0], [0, 0]]), torch.tensor([1, 1, 2]))
    with pytest.raises(BadInput, match=rf"^attack edge_case: {message}"):
        edges(with_data(attack_view("text"), given), given, **params)


def test_a_test_set_without_the_source_is_refused() -> None:
    view, test = attack_view("table"), samples("table", 32, "test")
    with pytest.raises(
        BadInput,
        match=r"^attack edge_case: none of the evaluated 0 samples of source=1 is an edge case",
    ):
        edges(view, Samples(test.x[test.y != 1], test.y[test.y != 1]))
