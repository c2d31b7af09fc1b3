"""Texts as token ids: the words of a text, a vocabulary by frequency, word vectors."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backstop.platform.intake.files import naming_file
from backstop.platform.params import BadInput

UNKNOWN = "<unknown>"
UNKNOWN_ID = 1  # 0 pads
REPEATED = re.compile(r"(\w)\1\1+")  # digits too, which changes no word
TOKEN = re.compile(
    r"(https?://\S+|ww\.\S+)"  # ww. was www.
    r"|((?<!\w)@\w+)"
    r"|(\d+(?:[.,:]\d+)*)"
    r"|[^\W\d_]+(?:'[^\W\d_]+)*"
    r"|[!?]"
)
GROUP_NAMES = ("", "<url>", "<user>", "<number>")

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]


def words_of(text: str) -> list[str]:
    """The words of a text, as the data sheet of the tweets says.

    >>> words_of("LOOOL, it&#39;s 9.30 @ work... www.a.org me@b.net ÄRGER")
    ['lool', "it's", '<number>', 'work', '<url>', 'me', 'b', 'net', 'ärger']
    """
    lower = html.unescape(text).lower()
    straight = lower.replace("’", "'")
    shortened = REPEATED.sub(r"\1\1", straight)
    return [_word(match) for match in TOKEN.finditer(shortened)]


def _word(match: re.Match[str]) -> str:
    """The name of an address, a mention or a number; every other word as it stands."""
    if match.lastindex is None:
        return match[0]
    return GROUP_NAMES[match.lastindex]


def make_vocabulary(texts: Iterable[Sequence[str]], words: int) -> dict[str, int]:
    """Word → token id: the unknown word, then the most frequent words, ties in alphabetical order.

    >>> make_vocabulary([["a", "b"], ["b", "c"]], 3)
    {'<unknown>': 1, 'b': 2, 'a': 3}
    """
    counts = Counter(chain.from_iterable(texts))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    kept = [UNKNOWN, *ranked[: words - 1]]
    return {word: token for token, word in enumerate(kept, start=UNKNOWN_ID)}


def token_ids(
    texts: Iterable[Sequence[str]],
    vocabulary: Mapping[str, int],
    length: int,
) -> Tensor:
    """Token ids (N, length), padded on the right with 0.

    >>> token_ids([["b"], ["x", "b"]], {"<unknown>": 1, "b": 2}, 2)
    tensor([[2, 0],
            [1, 2]])
    """
    rows = [_known_ids(text, vocabulary) for text in texts]
    sizes = np.array([len(row) for row in rows], np.int64)
    x = np.zeros((len(rows), length), np.int64)
    present = np.arange(length) < sizes[:, None]
    x[present] = list(chain.from_iterable(rows))
    return torch.from_numpy(x)


def _known_ids(text: Sequence[str], vocabulary: Mapping[str, int]) -> list[int]:
    return [vocabulary.get(word, UNKNOWN_ID) for word in text]


def unseen(rows: Tensor, seen: Tensor) -> Tensor:
    """Which rows of token ids (N, L) are not among those seen: (N,) bool."""
    known = {row.tobytes() for row in seen.numpy()}
    new = [row.tobytes() not in known for row in rows.numpy()]
    return torch.tensor(new, dtype=torch.bool)


def read_vectors(
    path: Path,
    vocabulary: Mapping[str, int],
    size: int,
    generator: torch.Generator,
    hint: str,
) -> Tensor:
    """Initial values of an embedding (size, dim): the vectors of a file for the words that it has.

    Draws for the others, of the same spread; the mean for the unknown word, zeros for padding.
    """
    vectors = _vectors(path, vocabulary, hint)
    if not vectors:
        raise BadInput(f"{path} has none of the {len(vocabulary)} words of the tweets; {hint}")
    numbers = np.stack(list(vectors.values()))
    # numpy's sums, unlike torch's, do not depend on the number of threads
    deviation = float(numbers.std(dtype=np.float64))
    drawn = torch.randn(size, numbers.shape[1], generator=generator)
    rows = drawn * deviation
    rows[list(vectors)] = torch.from_numpy(numbers)
    rows[0] = 0
    rows[UNKNOWN_ID] = torch.from_numpy(numbers.mean(0, dtype=np.float64))
    return rows


def _vectors(
    path: Path,
    vocabulary: Mapping[str, int],
    hint: str,
) -> dict[int, Vector]:
    """Token id → vector, for the words of the vocabulary that the file has."""
    vectors: dict[int, Vector] = {}
    dim = 0
    with naming_file(path, hint), path.open(encoding="utf-8", newline="\n") as file:
        for line_number, line in enumerate(file, start=1):
            word, _, rest = line.partition(" ")
            token = vocabulary.get(word, UNKNOWN_ID)
            if token == UNKNOWN_ID:
                continue
            vector = _vector(rest)
            dim = dim or len(vector)
            if not dim or len(vector) != dim or not np.isfinite(vector).all():
                raise BadInput(
                    f"{path}: line {line_number} is not a word and {dim or 'some'} finite numbers;"
                    f" {hint}"
                )
            vectors[token] = vector
    return vectors


def _vector(text: str) -> Vector:
    """The numbers of a text, none where a word of it is no number."""
    try:
        return np.array(text.split(), np.float32)
    except ValueError:
        return np.empty(0, np.float32)
