"""Documents of made-up words, each about one topic, for tests and quick looks at text; nothing to
download.

p(w | y) ∝ exp(s g_{y,w}) / w  with g_{y,w} ~ N(0, 1); the words of a document are drawn
independently from p(· | y).

Shapes: train (samples, length) and test (samples // 4, length), at least one test sample per class,
int64 token ids from 1 on, padded on the right with 0; lengths are uniform on length // 2 … length,
at least 1; all classes equally frequent up to one sample.

Source: the multinomial model of A. McCallum, K. Nigam, "A Comparison of Event Models for Naive
Bayes Text Classification", AAAI Workshop on Learning for Text Categorization, 1998: the best
classifier is linear in the counts of the words. The frequencies 1 / w of word number w are Zipf's
law (G. K. Zipf, "Human Behavior and the Principle of Least Effort", 1949).

Deviations: none. Its seed is a parameter of its own: all seeds of an experiment see the same data.
The vocabulary holds every word, also those that no training document has, in the order of w.

Example:
>>> from pathlib import Path
>>> data = topics(samples=100, length=8, words=50, classes=2).load(Path())
>>> data.train.x.shape, data.train.y.bincount().tolist(), list(data.vocabulary)[:4]
(torch.Size([100, 8]), [50, 50], ['guwu', 'loro', 'rili', 'wege'])
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, Samples
from backstop.platform.intake.checks import checked
from backstop.platform.params import Range
from backstop.platform.seeds import generator

VERSION = 1
KINDS = ("text",)
ONSETS = (
    "b",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "z",
    "br",
    "dh",
    "gh",
)
# 100: two decimal digits make one
SYLLABLES = [onset + vowel for onset in ONSETS for vowel in "aeiou"]


def topics(
    *,
    samples: Annotated[int, Range(2, 10**6), "train samples"] = 2000,
    length: Annotated[int, Range(1, 10**4), "words in the longest document"] = 16,
    words: Annotated[int, Range(2, 10**5), "words in the vocabulary"] = 500,
    classes: Annotated[int, Range(2, 10**3), "topics"] = 4,
    separation: Annotated[
        float, Range(0, 10), "how much the topics differ in the words they use, s"
    ] = 1.0,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draws; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """A mixture of topics as a dataset. The data folder is not read."""

    def cumulated_frequencies() -> Tensor:
        """(classes, words): of the words of each topic, inverted to draw words."""
        named = generator(seed, "topics", "taste")
        taste = torch.randn(classes, words, generator=named, dtype=torch.float64)
        frequency = (separation * taste).exp() / torch.arange(1, words + 1)
        return frequency.cumsum(1)

    def sizes(part: str, count: int) -> Tensor:
        """(count, 1): words of each document."""
        shortest = max(length // 2, 1)
        named = generator(seed, "topics", part, "lengths")
        return torch.randint(shortest, length + 1, (count, 1), generator=named)

    def draw(
        part: str,
        count: int,
        cumulated: Tensor,
    ) -> Samples:
        y = torch.arange(count) % classes
        named = generator(seed, "topics", part)
        height = torch.rand(count, length, generator=named, dtype=torch.float64)
        x = torch.zeros(count, length, dtype=torch.int64)
        for topic, steps in enumerate(cumulated):
            reached = height[y == topic] * steps[-1]
            index = torch.searchsorted(steps, reached, right=True)
            x[y == topic] = index.clamp_max(words - 1) + 1
        present = torch.arange(length) < sizes(part, count)
        return Samples(torch.where(present, x, 0), y)

    def load(_: Path) -> Data:
        cumulated = cumulated_frequencies()
        data = Data(
            train=draw("train", samples, cumulated),
            test=draw("test", max(samples // 4, classes), cumulated),
            classes=classes,
            kind="text",
            vocabulary={_word(token, words): token for token in range(1, words + 1)},
        )
        return checked(data, "topics")

    return Dataset(load=load)


def _word(token: int, words: int) -> str:
    """A pronounceable word for each token from 1 to ``words``, all different.

    A pair of digits of a multiple of the token is a syllable.
    """
    pairs = max((len(str(words)) + 1) // 2, 2)
    # 7919 shares no factor with 100, so this permutes the numbers below 100^pairs
    digits = token * 7919 % 100**pairs
    return "".join(SYLLABLES[digits // 100**pair % 100] for pair in range(pairs))
