"""Datasets in LEAF's form: JSON files of users, each with samples of its own.

A part is a folder of files ``{"users": [name, …], "num_samples": [count, …], "user_data": {name:
{"x": [input, …], "y": [label, …]}}}``. LEAF writes ``train`` and ``test`` beside each other, with
the same users or with others in the second.

Source: S. Caldas, S. M. K. Duddu, P. Wu, T. Li, J. Konečný, H. B. McMahan, V. Smith, A. Talwalkar,
"LEAF: A Benchmark for Federated Settings", 2018 (arXiv 1812.01097), and its public code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Kind, Reading, Samples
from backstop.platform.intake.checks import checked, scale
from backstop.platform.intake.files import locate_file, naming_file
from backstop.platform.intake.tables import repeats
from backstop.platform.params import BadInput

KEYS = ("users", "num_samples", "user_data")


class User(NamedTuple):
    """The samples of one user."""

    name: str
    x: Tensor  # (n, …) inputs
    y: Tensor  # (n,) int64
    dropped: int = 0  # samples that the dataset cannot take


# (inputs, labels) of a user as JSON has them → tensors and how many are left out. Whatever it
# raises becomes BadInput that names file and user.
Decode = Callable[[Sequence[Any], Sequence[Any]], tuple[Tensor, Tensor, int]]


class LeafForm(NamedTuple):
    """What a dataset in LEAF's form is made of."""

    name: str
    kind: Kind
    classes: tuple[str, ...]  # names, by their labels
    decode: Decode
    dropped: str  # why ``decode`` leaves samples out
    vocabulary: Mapping[str, int] | None = None
    whole_counts: bool = False  # num_samples counts what a user has in all parts together


def leaf_files(name: str, how: str = "") -> tuple[File, File]:
    """The folders of the two parts, as LEAF's own folder ``data`` has them; ``how`` one comes by
    them where no script makes them.
    """
    how = how or f"make it by LEAF's data/{name}/preprocess.sh (github.com/TalwalkarLab/leaf)"
    hint = f"{how} and put {name}/data/train and {name}/data/test into the data folder"
    train, test = (File(f"{name}/data/{part}", None, hint) for part in ("train", "test"))
    return train, test


def leaf_dataset(form: LeafForm) -> Dataset:
    """A dataset in LEAF's form whose natural clients are the users of its train part, in
    alphabetical order of their names.
    """
    files = leaf_files(form.name)

    def load(folder: Path) -> Data:
        train, test = ([*users_of(locate_file(folder, file), file, form)] for file in files)
        return leaf_data(form, train, test)

    return Dataset(load=load, files=files)


def users_of(
    folder: Path,
    file: File,
    form: LeafForm,
) -> Iterator[User]:
    """The users of a part that have samples, in alphabetical order of their names; one file is in
    memory at a time. Raises BadInput for a file of another form, and for a user of two files.
    """
    found: dict[str, User] = {}
    where: dict[str, str] = {}
    with naming_file(folder, file.hint):
        places = sorted(place for place in folder.iterdir() if place.suffix == ".json")
    if not places:
        raise BadInput(f"{folder} has no .json files; {file.hint}")
    for place in places:
        for user in _users_in(place, file.hint, form):
            if user.name in found:
                raise BadInput(
                    f"{place} has user {user.name!r}, whom {where[user.name]} has too; a user is in"
                    " one file of a part"
                )
            found[user.name], where[user.name] = user, place.name
    return (found[name] for name in sorted(found) if len(found[name].y))


def _users_in(
    place: Path,
    hint: str,
    form: LeafForm,
) -> Iterator[User]:
    with naming_file(place, hint):
        document = json.loads(place.read_bytes())
    missing = [key for key in KEYS if not isinstance(document, dict) or key not in document]
    if missing:
        raise BadInput(f"{place} is not in LEAF's form: it has no {missing[0]!r}; {hint}")
    names, counts, samples = (document[key] for key in KEYS)
    _check_users(place, names, counts, samples)
    for name, count in zip(names, counts, strict=True):
        yield _user(place, name, count, samples[name], form)


def _check_users(
    place: Path,
    names: Any,
    counts: Any,
    samples: Any,
) -> None:
    listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not listed or not isinstance(counts, list) or not isinstance(samples, dict):
        raise BadInput(f"{place}: users are a list of names, num_samples a list, user_data by name")
    if len(names) != len(counts):
        raise BadInput(f"{place} has {len(names)} users and {len(counts)} num_samples")
    if len(set(names)) < len(names) or set(names) != set(samples):
        other = next(iter(set(names) ^ set(samples)), "one of them twice")
        raise BadInput(f"{place}: its users are not those of its user_data: {other}")


def _user(
    place: Path,
    name: str,
    count: Any,
    samples: Any,
    form: LeafForm,
) -> User:
    try:
        x, y = samples["x"], samples["y"]
        paired = isinstance(x, list) and isinstance(y, list) and len(x) == len(y)
        if not paired or not (len(x) <= count if form.whole_counts else len(x) == count):
            raise ValueError(f"{_count(x)} inputs, {_count(y)} labels and num_samples {count}")
        return User(name, *form.decode(x, y))
    except (BadInput, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(f"{place}: user {name!r}: {reason}") from None


def _count(items: Any) -> str:
    return str(len(items)) if isinstance(items, list) else "no list of"


def leaf_data(
    form: LeafForm,
    train: Sequence[User],
    test: Sequence[User],
) -> Data:
    """The users of both parts as one dataset, each user of the train part a natural client. Raises
    BadInput where a part has no samples.
    """
    for part, users in (("train", train), ("test", test)):
        if not users:
            raise BadInput(f"dataset {form.name}: its {part} part has no samples")
    samples, tested = (
        Samples(torch.cat([user.x for user in users]), torch.cat([user.y for user in users]))
        for users in (train, test)
    )
    mean, std = scale(samples.x) if form.kind == "image" else (None, None)
    if std is not None and min(std) == 0:
        raise BadInput(f"dataset {form.name}: all training images have one gray value")
    sizes = torch.tensor([len(user.y) for user in train])
    data = Data(
        samples,
        tested,
        classes=len(form.classes),
        kind=form.kind,
        mean=mean,
        std=std,
        client=torch.arange(len(train)).repeat_interleave(sizes),
        vocabulary=form.vocabulary,
    )
    return checked(data._replace(reading=_reading(form, data, train, test)), form.name)


def _reading(
    form: LeafForm,
    data: Data,
    train: Sequence[User],
    test: Sequence[User],
) -> Reading:
    """What became of the files."""
    labels = torch.cat([data.train.y, data.test.y]).bincount(minlength=data.classes).tolist()
    copies, across = repeats(data.train.x, data.test.x)
    dropped = sum(user.dropped for user in (*train, *test))
    strangers = {user.name for user in test} - {user.name for user in train}
    notes = [f"{len(strangers)} users have test samples alone"] if strangers else []
    sides = "×".join(map(str, data.train.x.shape[1:]))
    return Reading(
        source=f"{form.name}/data",
        rows=len(data.train.y) + len(data.test.y) + dropped,
        dropped={form.dropped: dropped} if dropped else {},
        classes=dict(zip(form.classes, labels, strict=True)),
        train=len(data.train.y),
        test=len(data.test.y),
        copies=copies,
        across=across,
        form=f"{sides} {'pixels' if form.kind == 'image' else 'token ids'}",
        notes=tuple(notes),
        clients=tuple(user.name for user in train),
    )
