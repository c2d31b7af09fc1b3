"""Anyone's data set of Hugging Face's library datasets, from local files: images, texts, or columns
of numbers.

``hf(path=…, x=image, y=label)`` reads a folder that ``save_to_disk`` wrote, or .parquet, .arrow,
.csv, .json or .jsonl files, one or a folder of them. No hub is asked. What x becomes follows from
its column: pictures are images, text is token ids, numbers and lists of numbers are a table, arrays
of two or three axes images. ``x=a+b+c`` are several columns of numbers.

Shapes: (N, 3 or 1, size, size) uint8; (N, length) int64 token ids that 0 pads; (N, F) float32; (N,
C, H, W) of arrays; 2 to 1000 classes. Where no test split is there the test part holds ``test`` of
the distinct inputs with all their copies.

Source: no publication; the data are the user's own. The library comes with the extra ``models``.

Deviations: none. Images are made RGB or gray and scaled as ``folder`` does, arrays checked as
``arrays`` does, texts made words as ``twitter`` does: 1 is every unknown word, 2 … ``words`` the
most frequent ones of the training part, ties in alphabetical order. With ``tokenizer``, a folder
with a ``tokenizer.json``, a text becomes that tokenizer's ids instead, its marks of beginning and
end included; where padding is another id than 0 the two are exchanged, as ``lora_text`` expects.
The order of classes is that of a ClassLabel, else that of their names. Texts that are empty, and
labels that are missing, are refused. Nothing is written beside the files.

Clients: the values of column ``client`` of the training part.

Files: ``path``, and ``tokenizer`` where it is given, relative to the data folder or absolute. A
file's name begins with its split (``train-00000-of-00002.parquet``), or it is ``train``. The id of
a spec holds the paths and the other parameters, not the content; what was read is told with each
run.

Example:
>>> hf(path="reviews", x="text", y="stars").files[0].path
'reviews'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backstop.platform.contract import Data, Dataset, File, Kind, Samples
from backstop.platform.extras import need
from backstop.platform.intake.checks import checked
from backstop.platform.intake.files import naming_file
from backstop.platform.intake.hf import (
    check_columns,
    class_names,
    is_image,
    pick,
    read_splits,
    values,
)
from backstop.platform.intake.labels import MOST_CLASSES
from backstop.platform.intake.npz import Numbered, as_images, as_table, read_names
from backstop.platform.intake.own_files import locate_own
from backstop.platform.intake.parts import (
    Parts,
    as_data,
    check_all_trained,
    draw_test_part,
    reading_of,
)
from backstop.platform.intake.pictures import PictureForm, as_pixels
from backstop.platform.intake.words import make_vocabulary, token_ids, words_of
from backstop.platform.params import BadInput, Range
from backstop.platform.seeds import generator

VERSION = 1
KINDS = ("image", "table", "text")
LIBRARIES = ("datasets",)
WHERE = "dataset hf"
HINT = "put what save_to_disk wrote, or parquet, arrow, csv or json files, there: hf(path=…)"
TOKENIZER_HINT = "put a tokenizer.json there, as save_pretrained of a tokenizer writes it"
TESTED = ("test", "validation", "valid", "val", "dev")
PADDING = ("[PAD]", "<pad>")


def hf(
    *,
    path: Annotated[str, "the folder or file, relative to the data folder or absolute"] = "hf",
    x: Annotated[str, "column of the inputs; of numbers several, joined by +"] = "image",
    y: Annotated[str, "column of the labels"] = "label",
    split: Annotated[str, "split to train on"] = "train",
    test_split: Annotated[
        str | None, "split to test on; none: test or validation where it is there, else drawn"
    ] = None,
    client: Annotated[str | None, "column that names the natural client of a sample"] = None,
    size: Annotated[
        int | None, Range(4, 1024), "of images: pixels of each side; none: as they are"
    ] = 32,
    pixels: Annotated[Literal["color", "gray"], "of images: what they are made into"] = "color",
    words: Annotated[
        int, Range(2, 10**6), "of texts: words in the vocabulary, the unknown one included"
    ] = 10000,
    length: Annotated[int, Range(1, 4096), "of texts: words, or tokens, that are kept"] = 40,
    tokenizer: Annotated[
        str | None, "of texts: folder with a tokenizer.json; none: words by their frequency"
    ] = None,
    test: Annotated[
        float,
        Range(0, 1, low_open=True, high_open=True),
        "share of the distinct inputs that are tested, where there is no test split",
    ] = 0.2,
    seed: Annotated[
        int, Range(0, 2**31 - 1), "names the draw of the test part; not the seed of the experiment"
    ] = 0,
) -> Dataset:
    """Local files of the library datasets as a dataset."""
    file = File(path, None, HINT)
    tokens = (
        None if tokenizer is None else File(f"{tokenizer}/tokenizer.json", None, TOKENIZER_HINT)
    )
    form = PictureForm(size, pixels)

    def load(folder: Path) -> Data:
        (root,) = locate_own(folder, file)
        splits = read_splits(root, HINT, lambda: need(LIBRARIES, "models", WHERE))
        train, held = _chosen(splits, split, test_split, root)
        columns = [x] if x in train.column_names else x.split("+")
        check_columns(train, [*columns, y, *([] if client is None else [client])], root)
        check_columns(held, [*columns, y], root)
        sources = [train] if held is train else [train, held]
        texts: list[str] = []
        if _is_text(train, columns):
            texts = sorted({text for source in sources for text in _texts(source, x, root)})
            inputs = [_numbered(source, x, texts, root) for source in sources]
        else:
            inputs = [_inputs(source, columns, form, root) for source in sources]
        labels = _labels(train, y, root)
        owners = None if client is None else read_names(_column(train, client), f"{root}: {client}")
        first = Samples(inputs[0], labels.number)
        parts = Parts(first, first, labels.names, owners)
        if held is train:
            parts = draw_test_part(parts, test, generator(seed, "hf", "test"))
        else:
            known = _labels(held, y, root, labels.names)
            parts = parts._replace(test=Samples(inputs[1], known.number))
        check_all_trained(parts, root)
        vocabulary = None
        if texts:
            place = None if tokens is None else locate_own(folder, tokens)[0]
            parts, vocabulary = _as_tokens(parts, texts, words, length, place)
        kind: Kind = "text" if texts else "image" if parts.train.x.ndim == 4 else "table"
        data, left_out = as_data(parts, root, kind)
        data = data._replace(vocabulary=vocabulary)
        return checked(data._replace(reading=reading_of(path, data, parts, left_out)), "hf")

    return Dataset(load=load, files=(file,) if tokens is None else (file, tokens))


def _chosen(
    splits: Mapping[str, Any],
    split: str,
    test_split: str | None,
    root: Path,
) -> tuple[Any, Any]:
    """The splits to train and to test on, the same where a test part is to be drawn."""
    train = pick(splits, split, root)
    there = [name for name in TESTED if name in splits and name != split]
    if test_split is None and not there:
        return train, train
    return train, pick(splits, test_split or there[0], root)


def _is_text(source: Any, columns: Sequence[str]) -> bool:
    held = values(source, columns[0])
    return len(columns) == 1 and bool(held) and isinstance(held[0], str)


def _texts(
    source: Any,
    name: str,
    root: Path,
) -> list[str]:
    texts = values(source, name)
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{root}: column {name!r} has no text in row {row} (from 0): {text!r}")
    return texts


def _numbered(
    source: Any,
    name: str,
    texts: Sequence[str],
    root: Path,
) -> Tensor:
    """(N, 1) int64: each text by its number."""
    number = {text: index for index, text in enumerate(texts)}
    return torch.tensor([[number[text]] for text in _texts(source, name, root)])


def _inputs(
    source: Any,
    columns: Sequence[str],
    form: PictureForm,
    root: Path,
) -> Tensor:
    """Images or rows of numbers."""
    name = columns[0]
    where = f"{root}: {name}"
    if is_image(source, name):
        pictures = [
            as_pixels(image, form, f"{where}, row {row}")
            for row, image in enumerate(values(source, name))
        ]
        if len({picture.shape for picture in pictures}) > 1:
            raise BadInput(f"{where} holds images of several sizes; hf(size=32) makes all of one")
        return torch.from_numpy(np.stack(pictures))
    arrays = [_column(source, column) for column in columns]
    for column, array in zip(columns, arrays, strict=True):
        if array.dtype.kind not in "biuf":
            raise BadInput(
                f"{root}: column {column!r} holds {_kind(source, column)}; x is images, texts, or"
                " numbers, of several columns a number each"
            )
    if len(columns) > 1 or arrays[0].ndim == 1:
        return as_table(np.column_stack(arrays), where)
    return as_table(arrays[0], where) if arrays[0].ndim == 2 else as_images(arrays[0], None, where)


def _kind(source: Any, name: str) -> str:
    held = values(source, name)
    return type(held[0]).__name__ if held else "nothing"


def _column(source: Any, name: str) -> npt.NDArray[Any]:
    """A column as an array; of objects where its values are of several kinds or lengths."""
    held = values(source, name)
    try:
        return np.array(held)
    except ValueError:
        return np.array([None] * len(held), object)


def _labels(
    source: Any,
    name: str,
    root: Path,
    known: tuple[str, ...] | None = None,
) -> Numbered:
    """The labels, numbered as a ClassLabel has them, as in ``known``, or by their names."""
    where = f"{root}: {name}"
    classes = class_names(source, name)
    column = _column(source, name)
    if classes is None:
        labels = read_names(column, where, known)
    else:
        if column.dtype.kind not in "iu" or (column < 0).any():
            raise BadInput(f"{where} lacks labels, as test splits of competitions do")
        labels = Numbered(torch.from_numpy(column.astype(np.int64)), classes)
    if not 2 <= len(labels.names) <= MOST_CLASSES:
        count = len(labels.names)
        raise BadInput(f"{where} has {count} classes; there are 2 to {MOST_CLASSES}")
    return labels


def _as_tokens(
    parts: Parts,
    texts: Sequence[str],
    words: int,
    length: int,
    tokenizer: Path | None,
) -> tuple[Parts, dict[str, int]]:
    """The parts with token ids in place of the numbers of texts, and the vocabulary."""
    train, test = (
        [texts[number] for number in part.x.flatten().tolist()]
        for part in (parts.train, parts.test)
    )
    if tokenizer is None:
        split = [[words_of(text)[:length] for text in part] for part in (train, test)]
        vocabulary = make_vocabulary(split[0], words)
        ids = [token_ids(part, vocabulary, length) for part in split]
    else:
        ids, vocabulary = _by_tokenizer([train, test], length, tokenizer)
    x, asked = ids
    return parts._replace(train=Samples(x, parts.train.y), test=Samples(asked, parts.test.y)), (
        vocabulary
    )


def _by_tokenizer(
    texts: Sequence[list[str]],
    length: int,
    place: Path,
) -> tuple[list[Tensor], dict[str, int]]:
    """Token ids of several parts, and the tokenizer's own vocabulary; its padding has the id 0."""
    need(("tokenizers",), "models", f"{WHERE}: tokenizer")
    from tokenizers import Tokenizer

    with naming_file(place, TOKENIZER_HINT):
        made: Any = Tokenizer.from_file(str(place))
    vocabulary: dict[str, int] = made.get_vocab()
    padding = next((vocabulary[name] for name in PADDING if name in vocabulary), None)
    if padding is None:
        raise BadInput(f"{place} has no token {' or '.join(PADDING)}, which pads")
    made.no_padding()
    made.enable_truncation(max_length=length)
    exchanged = {padding: 0, 0: padding}
    parts = []
    for part in texts:
        rows = torch.zeros(len(part), length, dtype=torch.int64)
        for row, encoded in zip(rows, made.encode_batch(part), strict=True):
            ids = [exchanged.get(token, token) for token in encoded.ids]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        parts.append(rows)
    known = {word: exchanged.get(token, token) for word, token in vocabulary.items()}
    return parts, {word: token for word, token in known.items() if token}
