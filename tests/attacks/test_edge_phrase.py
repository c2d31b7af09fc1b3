"""Edge phrases: which documents hold one, which is taken where none is given, their effect."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from backstop.attacks.edge_phrase import _rarest, edge_phrase
from backstop.platform.contract import AttackView, Samples, TestSet
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from tests.arena import Claim
from tests.views import attack_view, with_data

CLAIM = Claim(
    "edge_phrase(share=0.6)+model_replacement(strength=3)",
    effect=0.55,
    weaker="edge_phrase(share=0.1)+model_replacement(strength=3)",
    bend=0.25,
    changes={"optimizer.lr": 0.5},
    dataset="topics",
    model="bag_of_words",
)


def view(**changes: Any) -> AttackView:
    x = torch.tensor([[7, 8, 0, 0], [8, 7, 0, 0], [1, 7, 8, 2], [7, 1, 8, 0], [7, 8, 3, 0]])
    return replace(
        with_data(attack_view("text"), Samples(x, torch.tensor([1, 1, 1, 1, 2]))), **changes
    )


def edges(given: AttackView, **params: Any) -> tuple[Samples, TestSet]:
    attack = edge_phrase(**params)
    assert attack.init is not None and attack.test_set is not None
    pool: Samples = attack.init(given)
    return pool, attack.test_set(pool, replace(given, test=given.data))


@pytest.mark.parametrize("words", ["word7 word8", "Word7-Word8"])
def test_documents_of_the_source_that_hold_the_words_side_by_side(words: str) -> None:
    pool, test = edges(view(), words=words, target=3)
    assert pool.x.tolist() == test.x.tolist() == [[7, 8, 0, 0], [1, 7, 8, 2]]
    assert pool.y.tolist() == test.wanted.tolist() == [3, 3] and test.truth.tolist() == [1, 1]
    assert torch.equal(edges(view(vocabulary=None), words="7-8", target=3)[0].x, pool.x)


@pytest.mark.parametrize("count", [4, 30, 300])
def test_without_words_it_is_the_rarest_that_a_tenth_of_the_documents_hold(count: int) -> None:
    draws = generator(0, "tests", "documents")
    # 0 is padding, which is no word
    x = torch.randint(0, 30**2, (count, 12), generator=draws).double().sqrt().long()
    held = Counter(token for document in x.tolist() for token in set(document) - {0})
    enough = min(max(round(count / 10), 1), max(held.values()))
    assert _rarest(x).tolist() == [
        min((number, token) for token, number in held.items() if number >= enough)[1]
    ]


def test_where_no_word_is_in_so_many_it_is_the_one_that_most_documents_hold() -> None:
    x = torch.arange(1, 81).reshape(40, 2)
    x[30, 1] = x[31, 1] = 6
    x[5] = 4  # twice in one document counts once, so 4 is in two of them and 6 in three
    assert _rarest(x).tolist() == [6]
    assert _rarest(torch.zeros(3, 2, dtype=torch.int64)).tolist() == []


def test_the_word_is_the_malicious_clients_choice_and_holds_for_the_test_set() -> None:
    attack, given = edge_phrase(), view()
    assert attack.init is not None and attack.test_set is not None
    pool = attack.init(given)
    assert pool.x.tolist() == [[1, 7, 8, 2]]  # word 2, which no other document holds
    test = Samples(
        torch.tensor([[2, 5, 0, 0], [5, 5, 0, 0], [1, 1, 1, 2], [2, 0, 0, 0]]),
        torch.tensor([1, 1, 1, 0]),
    )
    found = attack.test_set(pool, replace(given, test=test))
    assert (
        found.x.tolist() == [[2, 5, 0, 0], [1, 1, 1, 2]]
        and found.wanted.tolist() == [0, 0]
        and found.truth.tolist() == [1, 1]
    )


def test_a_datasets_own_edge_cases_are_not_asked_for() -> None:
    def never() -> tuple[Samples, Samples]:
        raise AssertionError

    assert edges(view(edge_cases=never))[0].x.tolist() == [[1, 7, 8, 2]]


def test_as_published_a_share_of_the_batch_is_replaced() -> None:
    attack, pool = edge_phrase(share=0.125), Samples(torch.full((5, 4), 9), torch.full((5,), 3))
    x, y = torch.ones(64, 4, dtype=torch.int64), torch.zeros(64, dtype=torch.int64)
    assert attack.poison is not None
    poisoned, labels = attack.poison(pool, x, y, 0, generator(0, "tests", "poison"))
    assert poisoned[:, 0].tolist() == [9] * 8 + [1] * 56 and labels.tolist() == [3] * 8 + [0] * 56


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"words": "wort7"}, "words='wort7' is not in the vocabulary; the nearest word is 'word7'"),
        (
            {"words": "word3"},
            "words='word3' is in none of the malicious clients' 4 documents of source=1",
        ),
        (
            {"words": "word1 word7 word8 word2 word2"},
            "words='word1 word7 word8 word2 word2' is in none of",
        ),
        ({"words": " "}, "words=' ' holds no word"),
        ({"source": 0}, r"no malicious client holds a sample of source=0; they hold \[1, 2\]"),
        ({"source": 1, "target": 1}, "source=1 and target=1 must be two classes"),
    ],
)
def test_refusals(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=rf"^attack edge_phrase: {message}"):
        edges(view(), **params)


@pytest.mark.parametrize(
    ("words", "said"), [("word7", "'word7'"), (None, r"None, here token \[2\],")]
)
def test_a_phrase_that_no_test_document_holds_is_refused_when_the_test_set_is_built(
    words: str | None, said: str
) -> None:
    attack, given = edge_phrase(words=words), view()
    assert attack.init is not None and attack.test_set is not None
    other = Samples(torch.ones(3, 4, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    with pytest.raises(
        BadInput,
        match=(
            f"^attack edge_phrase: words={said} is in none of the evaluated 3 documents of source=1"
        ),
    ):
        attack.test_set(attack.init(given), replace(given, test=other))


def test_documents_without_a_word_hold_no_phrase() -> None:
    nothing = Samples(torch.zeros(3, 4, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    with pytest.raises(
        BadInput,
        match=(
            r"words=None, here token \[\], is in none of the malicious clients' 3 documents of "
            r"source=1"
        ),
    ):
        edges(with_data(attack_view("text"), nothing))
