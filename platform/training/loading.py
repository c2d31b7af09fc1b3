"""Data loaded once, with digests of what was read."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from backstop.platform import plugins
from backstop.platform.contract import Data, Dataset
from backstop.platform.intake import readings
from backstop.platform.params import BadInput
from backstop.platform.specs.part import Part
from backstop.platform.training.device import fingerprint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Params = tuple[tuple[str, object], ...]  # of a part, in the order of their names


def data_folder(given: str | Path | None = None) -> Path:
    """The data folder: the one given, else ``$BACKSTOP_DATA``, else ``~/.cache/backstop``."""
    named = given or os.environ.get("BACKSTOP_DATA")
    folder = Path(named) if named else Path.home() / ".cache" / "backstop"
    return folder.expanduser()


def dataset(part: Part) -> Dataset:
    """The dataset plug-in of a spec."""
    plugin: Dataset = plugins.build("datasets", part.name, part.params)
    return plugin


def _hashable(part: Part) -> Params:
    return tuple(sorted(part.params.items()))


@lru_cache(maxsize=2)
def _load(
    name: str,
    params: Params,
    folder: Path,
) -> Data:
    data = dataset(Part(name, dict(params))).load(folder)  # type: ignore[arg-type]
    if len(data.train.y.unique()) < 2:
        raise BadInput(
            f"dataset {name}: all {len(data.train.y)} training samples have one label,"
            f" {int(data.train.y[0])}; nothing can be learned"
        )
    data = data._replace(reading=readings.of(data, name))
    assert data.reading is not None
    print(readings.line(data.reading), file=sys.stderr, flush=True)
    return data


def load_dataset(part: Part, folder: Path) -> Data:
    """The decoded dataset; the last two are kept, so that the trials of a sweep decode it once. One
    line on stderr says what was read.
    """
    return _load(part.name, _hashable(part), folder)


def what_was_read(
    part: Part,
    folder: Path,
    limit: int,
) -> str:
    """What the dataset made of its files, as JSON of at most ``limit`` characters; the dataset is
    loaded if it is not kept.
    """
    reading = load_dataset(part, folder).reading
    assert reading is not None
    return readings.tag(reading, limit)


@lru_cache(maxsize=2)
def _edge_cases(
    name: str,
    params: Params,
    folder: Path,
) -> tuple[Tensor, Tensor] | None:
    read = dataset(Part(name, dict(params))).edge_cases  # type: ignore[arg-type]
    return read(folder) if read else None


def load_edge_cases(part: Part, folder: Path) -> tuple[Tensor, Tensor] | None:
    """The dataset's own edge cases for training and for testing, kept like the dataset itself; None
    where it has none.
    """
    return _edge_cases(part.name, _hashable(part), folder)


@lru_cache(maxsize=8)
def _content(
    name: str,
    params: Params,
    folder: Path,
) -> str:
    data = _load(name, params, folder)
    tensors = [*data.train, *data.test]
    tensors += [tensor for tensor in (data.client, data.vectors) if tensor is not None]
    return _hashed(tensors, f"{data.classes} {data.kind} {data.mean} {data.std}")


@lru_cache(maxsize=8)
def _edge_content(
    name: str,
    params: Params,
    folder: Path,
) -> str:
    return _hashed(_edge_cases(name, params, folder) or (), "edge cases")


def _hashed(tensors: Iterable[Tensor], words: str) -> str:
    """The first 16 hexadecimal digits of a sha256 over words, types, shapes and values."""
    digest = hashlib.sha256(words.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def content(part: Part, folder: Path) -> str:
    """A digest of the decoded dataset, 16 hexadecimal digits: of what was read, not of the file.

    Raises BadInput where the data cannot be read.
    """
    return _content(part.name, _hashable(part), folder)


def edge_content(part: Part, folder: Path) -> str:
    """A digest of the dataset's own edge cases. Raises BadInput where they cannot be read."""
    return _edge_content(part.name, _hashable(part), folder)


def machine_digest(
    part: Part,
    folder: Path,
    where: torch.device,
) -> str:
    """What besides a spec decides on the bytes of its experiment: the decoded data, the versions
    and the kind of device.
    """
    words = f"{content(part, folder)} {fingerprint(where)}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]
