"""A picture of every trigger on real images: docs/triggers.png, and one of each for the page.

For each attack on images that changes what a model sees, a test image before and after, and the
difference four times enlarged around gray: on handwritten digits (8 x 8) and on pieces of
photographs (32 x 32 RGB), after two rounds of an attacked experiment, so that learned triggers are
learned. Attacks with inputs of their own (edge_case, semantic) show one of them. The page has the
photographs, one small file for each attack. Run from the repository's root:

    python benchmarks/triggers.py [OUT [FOLDER]]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.specs.part import to_chain
from backstop.platform.training import network

BASE = Spec(
    clients=10,
    per_round=10,
    malicious=0.2,
    selection="fixed",
    alpha=None,
    rounds=3,
    batch=16,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    root_size=20,
    eval_every=3,
)
TASKS = [
    BASE.replace(dataset=Part("digits"), model=Part("mlp")),
    BASE.replace(dataset=Part("patches"), model=Part("cnn")),
]
EXAMPLE = {"digits": 3, "patches": 0}  # the class of the image shown: the one of most contrast


COLUMNS = ("clean", "triggered", "difference")
WIDTH = 7  # columns of an attack: three for each task, and a gap


def pair(spec: Spec) -> tuple[Tensor | None, Tensor]:
    """A clean image, None where the attack has inputs of its own, and one under the trigger; both
    (C, H, W).
    """
    experiment = Experiment(spec, Path("unused"), "cpu")
    for _ in range(2):
        experiment.round()
    probe = experiment.probe()
    assert probe.triggered is not None
    if len(probe.triggered.x) != len(probe.clean.x):
        return None, network.to_unit_interval(probe.triggered.x[0])
    of_class = probe.clean.y == EXAMPLE[spec.dataset.name]
    contrast = probe.clean.x.float().flatten(1).std(1) * of_class
    index = int(contrast.argmax())
    before, after = probe.clean.x[index], probe.triggered.x[index]
    return network.to_unit_interval(before), network.to_unit_interval(after)


def images_by_task(name: str) -> list[list[Tensor | None]]:
    """One attack in each task: the image before and after, and their difference."""
    tasks = []
    for task in TASKS:
        before, after = pair(task.replace(attack=to_chain(name, "attack")))
        difference = None if before is None else (0.5 + 4 * (after - before)).clamp(0, 1)
        tasks.append([before, after, difference])
    return tasks


def shows_in_images(name: str) -> bool:
    """Whether the attack has a trigger that changes images; label_flip changes none."""
    kinds = plugins.kinds("attacks", name) or ("image",)
    return plugins.attack_facts(name).trigger and "image" in kinds and name != "label_flip"


def draw(out: Path, folder: Path) -> None:
    """Write the picture, and into the folder those for the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in plugins.names("attacks") if shows_in_images(name)]
    half = -(-len(names) // 2)
    figure = Figure(figsize=(13, 1.0 * half + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(half, 2 * WIDTH - 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for position, name in enumerate(names):
        block, row = divmod(position, half)
        tasks = images_by_task(name)
        draw_attack(
            grid[row, WIDTH * block :],
            name,
            tasks,
            titled=row == 0,
        )
        write_strip(tasks[-1], folder / f"{name}.png")
    figure.savefig(out, dpi=110, metadata={"Software": None})


def write_strip(images: list[Tensor | None], file: Path) -> None:
    """The images that there are side by side, pixel by pixel."""
    from PIL import Image

    shown = [image.permute(1, 2, 0).expand(-1, -1, 3) for image in images if image is not None]
    pixels = (255 * torch.cat(shown, dim=1)).round().to(torch.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.numpy()).save(file, optimize=True)


def draw_attack(
    row: Any,
    name: str,
    tasks: list[list[Tensor | None]],
    *,
    titled: bool,
) -> None:
    """The images of one attack side by side, its name at their left."""
    images = [image for task in tasks for image in task]
    for axes, image, title in zip(row, images, COLUMNS * len(TASKS), strict=False):
        if titled:
            axes.set_title(title, fontsize=8)
        if image is not None:
            pixels = image.permute(1, 2, 0).expand(-1, -1, 3).numpy()
            axes.imshow(pixels, interpolation="nearest", vmin=0, vmax=1)
    first = row[0]
    first.text(
        -0.1,
        0.5,
        name,
        transform=first.transAxes,
        ha="right",
        va="center",
        fontsize=9,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = [Path(word) for word in sys.argv[1:]]
    places = [Path("docs/triggers.png"), Path("platform/results/report/triggers")]
    draw(*given, *places[len(given) :])
