"""Local files by Hugging Face's library ``datasets``: splits and columns, without any hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backstop.platform.intake.files import foreign, naming_file
from backstop.platform.params import BadInput, nearest

# ending of a file → the reader of the library
READERS = {
    ".parquet": "from_parquet",
    ".csv": "from_csv",
    ".json": "from_json",
    ".jsonl": "from_json",
    ".arrow": "from_file",
}
SAVED = ("dataset_dict.json", "state.json")  # of what save_to_disk wrote
SPLIT = re.compile(r"(train|test|validation|valid|val|dev)(?![A-Za-z0-9])")
UNNAMED = "train"  # the split of files whose names say none

Splits = Mapping[str, Any]  # name → datasets.Dataset


def read_splits(
    root: Path,
    hint: str,
    check_library: Callable[[], None],
) -> Splits:
    """The splits in a file, a folder of files or a folder of ``save_to_disk``. The library is asked
    for once there is something to read.
    """
    saved = root.is_dir() and any((root / name).is_file() for name in SAVED)
    files = {} if saved else _files(root, hint)
    check_library()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    with naming_file(root, hint):
        if saved:
            held = datasets.load_from_disk(str(root), keep_in_memory=True)
            return dict(held) if isinstance(held, datasets.DatasetDict) else {UNNAMED: held}
        return {split: _read(datasets.Dataset, paths) for split, paths in files.items()}


def _files(root: Path, hint: str) -> dict[str, list[Path]]:
    """Split → its files, all of one ending."""
    places = [root]
    if root.is_dir():
        inner = [*root.iterdir(), *((root / "data").glob("*") if (root / "data").is_dir() else ())]
        places = sorted(place for place in inner if place.suffix in READERS)
    endings = {place.suffix for place in places}
    if len(endings) != 1 or not endings <= set(READERS):
        listed = ", ".join(sorted(endings)) or "none of these"
        raise BadInput(
            foreign(root, f"; {hint}")
            or f"{root} has files of {listed}; there are files of one kind, {', '.join(READERS)},"
            f" or what save_to_disk wrote; {hint}"
        )
    splits: dict[str, list[Path]] = {}
    for place in places:
        named = SPLIT.match(place.stem) if root.is_dir() else None
        splits.setdefault(named[1] if named else UNNAMED, []).append(place)
    return splits


def _read(reader: Any, paths: Sequence[Path]) -> Any:
    """The files as one data set in memory; what the library keeps beside them is dropped."""
    read = getattr(reader, READERS[paths[0].suffix])
    if paths[0].suffix == ".arrow":
        from datasets import concatenate_datasets

        return concatenate_datasets([read(str(path)) for path in paths])
    with TemporaryDirectory(prefix="backstop-") as cache:
        return read([str(path) for path in paths], cache_dir=cache, keep_in_memory=True)


def pick(
    splits: Splits,
    name: str,
    root: Path,
) -> Any:
    """A split by its name. Raises BadInput where it is not there."""
    if name not in splits:
        raise BadInput(f"{root} has no split {name!r}; {nearest(name, splits)}")
    return splits[name]


def check_columns(
    split: Any,
    names: Sequence[str],
    root: Path,
) -> None:
    """Raise BadInput for a column that is not there."""
    for name in names:
        if name not in split.column_names:
            raise BadInput(f"{root} has no column {name!r}; {nearest(name, split.column_names)}")


def values(split: Any, name: str) -> list[Any]:
    """A column, decoded: images as PIL has them."""
    return list(split[name])


def is_image(split: Any, name: str) -> bool:
    """Whether a column holds images."""
    return type(split.features[name]).__name__ == "Image"


def class_names(split: Any, name: str) -> tuple[str, ...] | None:
    """The names of the classes where a column is a ClassLabel."""
    feature = split.features[name]
    return tuple(feature.names) if type(feature).__name__ == "ClassLabel" else None
