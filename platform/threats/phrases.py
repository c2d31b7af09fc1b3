"""Phrases of a user's own, as the token ids that the dataset has for them."""

from __future__ import annotations

from difflib import get_close_matches

from backstop.platform.contract import AttackView
from backstop.platform.params import BadInput


def phrase_ids(
    name: str,
    words: int | str,
    view: AttackView,
) -> list[int]:
    """The token ids of a phrase, its words joined by - or blanks: each as the vocabulary spells it,
    else in lower case. Without a vocabulary the words are ids.

    Raises BadInput for a word that the dataset does not have, or for no word; ``name`` is the
    attack's.
    """
    spelled = str(words).replace("-", " ").split()
    if not spelled:
        raise BadInput(f"attack {name}: words={words!r} holds no word")
    return [_word_id(name, word, view) for word in spelled]


def _word_id(
    name: str,
    word: str,
    view: AttackView,
) -> int:
    if not view.vocabulary:
        if not (word.isdecimal() and int(word) > 0):
            raise BadInput(
                f"attack {name}: words={word!r} is no token id; the dataset has no vocabulary, so "
                "words are ids from 1 on"
            )
        return int(word)
    for spelling in (word, word.lower()):
        if spelling in view.vocabulary:
            return view.vocabulary[spelling]
    near = get_close_matches(word.lower(), view.vocabulary, n=1, cutoff=0)
    raise BadInput(
        f"attack {name}: words={word!r} is not in the vocabulary; the nearest word is {near[0]!r}"
    )
