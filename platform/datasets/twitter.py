"""Sentiment140: tweets of spring 2009 labeled by their smiley, with tweets about Yorgos Lanthimos
as edge cases.

x are token ids: 0 pads on the right, 1 is every unknown word, 2 … ``words`` are the most frequent
words of the training part, the most frequent first and ties in alphabetical order. Classes: 0
negative, 1 positive; the smileys that decided are not in the published text.

A tweet becomes words as follows. HTML entities are undone, letters put in lower case, and a letter
repeated three or more times is kept twice. Then an address is ``<url>``, a mention ``<user>``, a
number ``<number>``; a word is letters with inner apostrophes; ! and ? stand for themselves.
Everything else separates, so that ``#tag`` is ``tag``. Tweets without a word are left out.

Shapes: train (at most ``samples``, length), test (at most ``test``, length) and edge cases (259,
length) and (120, length), int64; vectors, where asked for, (words + 1, dim) float32. ``client``
numbers the users of the training tweets in alphabetical order.

Source: A. Go, R. Bhayani, L. Huang, "Twitter Sentiment Classification using Distant Supervision",
Stanford, 2009. As users' own data: S. Caldas et al., "LEAF: A Benchmark for Federated Settings",
2018. Edge cases: H. Wang, K. Sreenivasan, S. Rajput, H. Vishwakarma, S. Agarwal, J. Sohn, K. Lee,
D. Papailiopoulos, "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS
2020: tweets about the director, labeled negative. Word vectors: J. Pennington, R. Socher, C. D.
Manning, "GloVe: Global Vectors for Word Representation", EMNLP 2014.

Deviations: the authors' 359 tweets labeled by hand are not the test set: ``test`` tweets, at most
a fifth, are drawn from the file before the training tweets are. Copied tweets and those of bots are
common, so a test tweet whose row of ids also stands in the training set is left out: the test set
is some 2 % smaller than drawn and lacks the most common short tweets. A user's tweets may be in
both parts. Edge cases for testing whose row stands among those for training are left out as well,
since an attack that remembers its training tweets would be credited for them; of the published ones
that is none. The edge cases were written about ten years after the tweets, so that a fifth of their
words, the director's name among them, are unknown ones. Neutral tweets (polarity 2) are left out.
``min_tweets`` counts a user's tweets in the file, of which the training set holds those that are
drawn. Rows of ``vectors`` whose word the file of vectors lacks are drawn, normal with mean 0 and
the standard deviation of the numbers found; the unknown word has the mean of the vectors found,
padding has zeros.

A label is 0 or 1, or 0 or 4 as in the original, 4.0 is 4; blank lines and a header line of the
original form mean nothing. The original form is latin-1 unless all its bytes are UTF-8. Where its
tweets are not enclosed in quotation marks every line is taken by itself, its first five commas
separating. LEAF's samples are lists of which the fifth field is the text, or the text alone; files
of a folder that repeat each other are refused.

Files: in the folder ``twitter``, ``form`` csv: ``tweets.csv.gz`` or ``tweets.csv`` (label, user,
text, id, date, part; of the rows of part ``block`` the date gives away the label, so they are taken
only if ``block`` says so); original: ``training.1600000.processed.noemoticon.csv`` (also beside the
folder); leaf: ``leaf_sample.json`` or every json file of the folder ``leaf``. With ``form=auto`` it
is the first of these that is there, and the id of a spec does not tell which: a leaderboard meant
for others should name the form. Edge cases: ``lanthimos_train.txt`` and ``lanthimos_test.txt`` in
the folder ``edge_case``, a tweet per line. Vectors: ``glove/<vectors>.txt``, a word and its numbers
per line.

Checked: against files in the published forms and in those of public reports (LEAF #55), with
made-up tweets.

Example:
>>> twitter(form="leaf").files[0].path, twitter().edge_target
('twitter/leaf_sample.json', 0)
>>> words_of("@anna soooo happy!! #sunday &lt;3 http://t.co/x don't you agree?")
['<user>', 'soo', 'happy', '!', '!', 'sunday', '<number>', '<url>', "don't", 'you', 'agree', '?']
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Reading, Samples
from backstop.platform.intake.checks import checked
from backstop.platform.intake.files import locate_file, naming_file, read_text
from backstop.platform.intake.tables import repeats
from backstop.platform.intake.tweets import CLASSES, ORIGINAL, Tweet, Tweets, read_tweets
from backstop.platform.intake.words import (
    make_vocabulary,
    read_vectors,
    token_ids,
    unseen,
    words_of,
)
from backstop.platform.params import BadInput, Range
from backstop.platform.seeds import generator

VERSION = 2
KINDS = ("text",)
NEGATIVE = CLASSES.index("negative")
FORMS = {
    "csv": "tweets.csv.gz or tweets.csv with the columns label, user, text, id, date, part",
    "original": f"{ORIGINAL} of Sentiment140",
    "leaf": "LEAF's sent140 as leaf_sample.json or a folder leaf of json files",
}
PATHS: dict[str, tuple[str, ...]] = {
    "csv": ("twitter/tweets.csv.gz", "twitter/tweets.csv"),
    "original": (f"twitter/{ORIGINAL}", ORIGINAL),
    "leaf": ("twitter/leaf_sample.json", "twitter/leaf"),
}
FORMS["auto"] = ", or ".join(FORMS.values())
PATHS["auto"] = tuple(chain.from_iterable(PATHS.values()))
EDGE_HINT = (
    "put the tweets about Yorgos Lanthimos of Wang et al. 2020, one per line,"
    " into edge_case under the data folder"
)
EDGE_FILES = tuple(
    File(f"edge_case/lanthimos_{part}.txt", None, EDGE_HINT) for part in ("train", "test")
)
VECTORS_HINT = (
    "put a text file of GloVe vectors, a word and its numbers per line,"
    " into glove under the data folder"
)

Worded = tuple[Tweet, list[str]]  # a tweet and its first words, at least one


class _Drawn(NamedTuple):
    """The tweets of the two parts and the vocabulary."""

    train: list[Worded]
    test: list[Worded]
    vocabulary: dict[str, int]
    source: Path
    read: Tweets
    left: dict[str, int]  # reason → tweets that are in neither part


def twitter(
    *,
    form: Annotated[
        Literal["auto", "csv", "original", "leaf"],
        "the files to read; auto: the first that is there",
    ] = "auto",
    words: Annotated[
        int, Range(2, 10**6), "words in the vocabulary, the unknown one included"
    ] = 10000,
    length: Annotated[int, Range(1, 1000), "words kept of a tweet"] = 40,
    samples: Annotated[int, Range(1, 10**7), "train tweets at most"] = 50000,
    test: Annotated[
        int, Range(1, 10**7), "tweets held out for testing, at most a fifth of all"
    ] = 5000,
    block: Annotated[
        bool, "of form csv: also the rows of part block, whose date gives away the label"
    ] = False,
    min_tweets: Annotated[
        int, Range(1, 10**4), "users with fewer tweets in the file are left out"
    ] = 1,
    vectors: Annotated[
        str | None, "name of a file of word vectors, e.g. glove.6B.300d; none: no vectors"
    ] = None,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draws; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """Sentiment140 as a dataset. Raises BadInput where ``vectors`` is no file's name."""
    embedding = None if vectors is None else _vectors_file(vectors)
    hint = f"put {FORMS[form]} into twitter under the data folder"
    first, *others = PATHS[form]
    source = File(first, None, hint, instead=tuple(File(path, None, hint) for path in others))

    def draw(folder: Path) -> _Drawn:
        """The test tweets first, so that another number of train tweets leaves them as they are."""
        path = locate_file(folder, source)
        read = read_tweets(path, hint, block=block)
        tweets = _of_users(read.tweets, min_tweets)
        held_out = min(test, len(tweets) // 5)
        order = torch.randperm(len(tweets), generator=generator(seed, "twitter", "draw"))
        drawn = [tweets[index] for index in order[: held_out + samples].tolist()]
        test_part = _worded(drawn[:held_out], length)
        train_part = _worded(drawn[held_out:], length)
        left = {
            **read.left,
            f"of users with fewer than {min_tweets}": len(read.tweets) - len(tweets),
            "not drawn": len(tweets) - len(drawn),
            "without a word": len(drawn) - len(train_part) - len(test_part),
        }
        vocabulary = make_vocabulary((kept for _, kept in train_part), words)
        return _Drawn(train_part, test_part, vocabulary, path, read, left)

    def embedded(folder: Path, vocabulary: Mapping[str, int]) -> Tensor | None:
        if embedding is None:
            return None
        draws = generator(seed, "twitter", "vectors")
        path = locate_file(folder, embedding)
        return read_vectors(path, vocabulary, words + 1, draws, VECTORS_HINT)

    def load(folder: Path) -> Data:
        drawn = draw(folder)
        train = _samples(drawn.train, drawn.vocabulary, length)
        held_out = _samples(drawn.test, drawn.vocabulary, length)
        new = unseen(held_out.x, train.x)
        if not new.any():
            raise BadInput(
                f"{drawn.source} has {len(train.y)} tweets to train on and no others to test on;"
                f" lower min_tweets, raise words or length, or {hint}"
            )
        data = Data(
            train=train,
            test=Samples(held_out.x[new], held_out.y[new]),
            classes=2,
            kind="text",
            client=_users(drawn.train),
            vocabulary=drawn.vocabulary,
            vectors=embedded(folder, drawn.vocabulary),
        )
        copies = int((~new).sum())
        left = {**drawn.left, "of the test part that the training part has too": copies}
        reading = _reading(drawn, data, left, folder)
        return checked(data._replace(reading=reading), "twitter")

    def edge_cases(folder: Path) -> tuple[Tensor, Tensor]:
        """Tweets about Lanthimos for training and for testing, without common rows."""
        parts = [_lines(locate_file(folder, file)) for file in EDGE_FILES]
        vocabulary = draw(folder).vocabulary

        def ids(tweets: list[str]) -> Tensor:
            words = (words_of(tweet)[:length] for tweet in tweets)
            return token_ids(words, vocabulary, length)

        train, held_out = map(ids, parts)
        return train, held_out[unseen(held_out, train)]

    return Dataset(
        load=load,
        files=(source,) if embedding is None else (source, embedding),
        edge_cases=edge_cases,
        edge_files=EDGE_FILES,
        edge_target=NEGATIVE,
    )


def _vectors_file(name: str) -> File:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise BadInput(
            f"dataset twitter: vectors={name!r} is not allowed;"
            " vectors is a file's name without .txt, e.g. glove.6B.300d"
        )
    return File(f"glove/{name}.txt", None, VECTORS_HINT)


def _of_users(tweets: list[Tweet], least: int) -> list[Tweet]:
    """The tweets of users who have at least so many."""
    counts = Counter(tweet.user for tweet in tweets)
    return [tweet for tweet in tweets if counts[tweet.user] >= least]


def _worded(tweets: list[Tweet], length: int) -> list[Worded]:
    """The tweets that have a word, each with its first words."""
    worded = [(tweet, words_of(tweet.text)[:length]) for tweet in tweets]
    return [(tweet, words) for tweet, words in worded if words]


def _samples(
    tweets: list[Worded],
    vocabulary: Mapping[str, int],
    length: int,
) -> Samples:
    x = token_ids((words for _, words in tweets), vocabulary, length)
    labels = [tweet.label for tweet, _ in tweets]
    return Samples(x, torch.tensor(labels, dtype=torch.int64))


def _users(tweets: list[Worded]) -> Tensor:
    """The user of each tweet, numbered in alphabetical order."""
    users = [tweet.user for tweet, _ in tweets]
    position = {user: index for index, user in enumerate(sorted(set(users)))}
    return torch.tensor([position[user] for user in users], dtype=torch.int64)


def _reading(
    drawn: _Drawn,
    data: Data,
    left: Mapping[str, int],
    folder: Path,
) -> Reading:
    """What is said at every load."""
    labels = torch.cat([data.train.y, data.test.y])
    counts = labels.bincount(minlength=2).tolist()
    users = 0 if data.client is None else int(data.client.max()) + 1
    without = _untested(data.test.y)
    most = data.train.x.shape[1]
    return Reading(
        source=_short_path(drawn.source, folder),
        rows=len(drawn.read.tweets) + drawn.read.left.total(),
        dropped={reason: count for reason, count in left.items() if count},
        classes=dict(zip(CLASSES, counts, strict=True)),
        train=len(data.train.y),
        test=len(data.test.y),
        copies=repeats(data.train.x, data.test.x)[0],
        form=f"{len(drawn.vocabulary)} words, {most} of a tweet at most, of {users} users",
        notes=(*drawn.read.notes, *without),
    )


def _untested(labels: Tensor) -> list[str]:
    """What is to be said of a class that no test tweet has."""
    lacking = sorted({0, 1} - set(labels.tolist()))
    return [f"no test tweet is {CLASSES[label]}" for label in lacking]


def _short_path(path: Path, folder: Path) -> str:
    """The path from the data folder where it is in there."""
    if path.is_relative_to(folder):
        path = path.relative_to(folder)
    return path.as_posix()


def _lines(path: Path) -> list[str]:
    """The tweets of a file that have a word."""
    with naming_file(path, EDGE_HINT):
        content = read_text(path, hint=f"; {EDGE_HINT}")
    lines = [line for line in content.split("\n") if words_of(line)]
    if not lines:
        raise BadInput(f"{path} holds no tweet; {EDGE_HINT}")
    return lines
