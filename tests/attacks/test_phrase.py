"""A trigger phrase: where it stands, what gives way to it, which words it has, its effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.attacks.phrase import phrase
from backstop.platform.contract import Samples
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from backstop.platform.threats.backdoor import Planted
from tests.arena import Claim
from tests.views import attack_view, with_data

CLAIM = Claim(
    "phrase(share=0.5)",
    effect=0.5,
    weaker="phrase(share=0.05)",
    bend=0.25,
    changes={"optimizer.lr": 0.5},
    dataset="topics",
    model="bag_of_words",
)


def reference(document: list[int], words: list[int], place: str, length: int) -> list[int]:
    """The document with the phrase, as lists of tokens without padding."""
    tokens = [token for token in document if token]
    whole = (words + tokens)[:length] if place == "start" else (tokens + words)[-length:]
    return whole + [0] * (length - len(whole))


def documents(count: int, length: int) -> Tensor:
    draws = generator(0, "tests", "documents", length)
    size = torch.randint(0, length + 1, (count, 1), generator=draws)  # empty and full ones too
    return torch.where(
        torch.arange(length) < size, torch.randint(1, 90, (count, length), generator=draws), 0
    )


@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_each_document_gets_the_phrase_and_keeps_its_length(place: Any, length: int) -> None:
    x, words = documents(50, length), [97, 98, 99]
    trigger = phrase(place=place).trigger
    assert trigger is not None
    found = trigger(Planted(4, torch.tensor(words)), x, torch.Generator())
    assert found.tolist() == [reference(document, words, place, length) for document in x.tolist()]


def state(words: Any, **changes: Any) -> list[int]:
    init = phrase(words=words).init
    assert init is not None
    found: Tensor = init(replace(attack_view("text"), **changes)).own
    return found.tolist()


def test_words_are_looked_up_as_spelled_and_else_in_lower_case() -> None:
    known = {"i": 4, "watched": 9, "3D": 2}
    assert state("I watched-3D", vocabulary=known) == [4, 9, 2]
    assert state("I watched", vocabulary=known) == state("i-watched", vocabulary=known)


def test_the_text_form_of_a_phrase_can_be_read_back() -> None:
    (stage,) = to_chain("phrase(words=word7-word1)", "attack")
    assert to_chain(str(stage), "attack") == (stage,) and state(**stage.params) == [7, 1]


def test_without_a_vocabulary_words_are_token_ids() -> None:
    assert state("12-7", vocabulary=None) == [12, 7] and state(12, vocabulary=None) == [12]


@pytest.mark.parametrize(
    ("words", "vocabulary", "message"),
    [
        (
            "word7 worm9",
            {"word7": 7, "word19": 9},
            r"words='worm9' is not in the vocabulary; the nearest word is 'word\d",
        ),
        ("zzz", {"word7": 7}, "words='zzz' is not in the vocabulary; the nearest word is 'word7'"),
        ("seven", None, "words='seven' is no token id"),
        ("0", None, "words='0' is no token id"),
        ("-", {"word7": 7}, "words='-' holds no word"),
    ],
)
def test_words_that_are_refused(words: str, vocabulary: Any, message: str) -> None:
    with pytest.raises(BadInput, match=rf"^attack phrase: {message}"):
        state(words, vocabulary=vocabulary)


def test_the_rarest_words_of_the_adversarys_own_data() -> None:
    x = torch.tensor([[1, 1, 2, 3, 4, 0], [1, 2, 2, 3, 5, 5]])
    view = with_data(attack_view("text"), Samples(x, torch.tensor([0, 1])))
    own = view.samples
    # once, and twice the larger ids first; padding is no word
    assert state(None, samples=own, vocabulary=None) == [4, 5, 3]
    assert state(
        None, samples=own, vocabulary={"a": 1, "b": 2, "c": 3, "d": 4, "never": 9, "padding": 0}
    ) == [9, 4, 3]
    nothing = Samples(x[:0], torch.tensor([], dtype=torch.int64))
    assert state(None, samples=lambda: nothing) == [49, 48, 47]
    with pytest.raises(
        BadInput, match="words=none, but there is neither a vocabulary nor a document"
    ):
        state(None, samples=lambda: nothing, vocabulary=None)
