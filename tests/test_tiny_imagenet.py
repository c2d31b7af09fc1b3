"""Tiny-ImageNet, read from folders that look like its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backstop.platform.contract import Data
from backstop.platform.params import BadInput
from backstop.platform.plugins import build

IDS = ("n02124075", "n01443537", "n07734744")  # not in alphabetical order, as in wnids.txt
WORDS = "n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn09999999\tmushroom\n"
HEADS = {"n02124075": 40, "n01443537": 120, "n07734744": 200}


def picture(place: Path, value: int, side: int = 64, mode: str = "RGB") -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side, 3) if mode == "RGB" else (side, side)
    Image.fromarray(np.full(shape, value, np.uint8), mode).save(place, quality=95)


def folder(at: Path) -> Path:
    root = at / "tiny-imagenet-200"
    root.mkdir()
    (root / "wnids.txt").write_text("\n".join(IDS) + "\n")
    (root / "words.txt").write_text(WORDS)
    for name, value in HEADS.items():
        for number in range(2):
            gray = name == IDS[0] and number == 1
            place = root / "train" / name / "images" / f"{name}_{number}.JPEG"
            picture(place, value + number, mode="L" if gray else "RGB")
        (root / "train" / name / f"{name}_boxes.txt").write_text("0\t0\t62\t62\n")
    lines = []
    for number, name in enumerate(reversed(IDS)):
        picture(root / "val/images" / f"val_{number}.JPEG", HEADS[name] + 5)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t32\t44\t62")
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def load(at: Path) -> Data:
    data: Data = build("datasets", "tiny_imagenet", {}).load(at)
    return data


def test_classes_are_in_alphabetical_order_and_validation_is_the_test_part(tmp_path: Path) -> None:
    folder(tmp_path)
    data = load(tmp_path)
    assert data.classes == 3 and data.train.x.shape == (6, 3, 64, 64)
    assert data.train.x.dtype == torch.uint8
    assert data.train.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.train.x[:, 0, 0, 0].tolist() == [120, 121, 40, 41, 200, 201]
    assert data.test.y.tolist() == [2, 0, 1] and data.test.x[:, 1, 5, 5].tolist() == [205, 125, 45]
    assert data.reading is not None
    assert data.reading.classes == {"goldfish": 3, "Egyptian cat": 3, "n07734744": 3}


def odd_size(root: Path) -> None:
    picture(root / "train" / IDS[1] / "images" / f"{IDS[1]}_1.JPEG", 9, side=32)


def all_small(root: Path) -> None:
    for place in root.rglob("*.JPEG"):
        picture(place, 9, side=32)


def empty_class(root: Path) -> None:
    for place in (root / "train" / IDS[2] / "images").iterdir():
        place.unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (write("wnids.txt", "\n".join((*IDS, "n1"))), "train and wnids.txt differ in class n1"),
        (write("wnids.txt", "n02124075"), "names 1 classes"),
        (write("wnids.txt", "\n".join((*IDS, IDS[0]))), "or one of them twice"),
        (lambda root: (root / "wnids.txt").unlink(), "wnids.txt"),
        (empty_class, "holds no image"),
        (odd_size, "has 32×32 pixels and .* the images of Tiny-ImageNet are all of 64×64"),
        (all_small, "has 32×32 pixels; the images of Tiny-ImageNet are all of 64×64"),
        (write("val/val_annotations.txt", ""), "names no image"),
        (write("val/val_annotations.txt", "val_0.JPEG\tn1\t0"), "line 1 is no image and a class"),
        (write("val/val_annotations.txt", f"../x.JPEG\t{IDS[0]}"), "line 1 is no image"),
        (write("val/val_annotations.txt", f"no.JPEG\t{IDS[0]}"), "no.JPEG"),
        (write(f"train/{IDS[0]}/images/{IDS[0]}_0.JPEG", "<html>"), "JPEG"),
    ],
)
def test_a_folder_of_another_form_is_refused(
    change: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    change(folder(tmp_path))
    with pytest.raises(BadInput, match=words) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_the_folder_it_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tiny-imagenet-200 is missing; unpack tiny-imagenet-200"):
        load(tmp_path)
