"""A picture of every trigger on real images: docs/triggers.png.

For each attack on images that changes what a model sees, a test image before and after, and the
difference four times enlarged around grey: on handwritten digits (8 x 8) and on pieces of
photographs (32 x 32 RGB), after two rounds of an attacked experiment, so that learned triggers are
learned. Attacks with inputs of their own (edge_case, semantic) show one of them. Run from the
repository's root:

    python benchmarks/triggers.py [OUT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.specs.part import to_chain
from backstop.platform.training import network

TASKS = [
    Spec(
        dataset=Part(dataset), model=Part(model), clients=10, per_round=10, malicious=0.2, selection="fixed", alpha=None, rounds=3,
        batch=16, optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}), root_size=20, eval_every=3,
    )
    for dataset, model in (("digits", "mlp"), ("patches", "cnn"))
]  # fmt: skip
EXAMPLE = {"digits": 3, "patches": 0}  # the class of the image shown: the one of most contrast


def pair(spec: Spec) -> tuple[Tensor | None, Tensor]:
    """A clean image, None where the attack has inputs of its own, and one under the trigger; both
    (C, H, W).
    """
    experiment = Experiment(spec, Path("unused"), "cpu")
    for _ in range(2):
        experiment.round()
    probe = experiment.probe()
    assert probe.triggered is not None
    own = len(probe.triggered.x) != len(probe.clean.x)
    contrast = probe.clean.x.float().flatten(1).std(1) * (
        probe.clean.y == EXAMPLE[spec.dataset.name]
    )
    place = 0 if own else int(contrast.argmax())
    return None if own else network.to_unit_interval(
        probe.clean.x[place]
    ), network.to_unit_interval(probe.triggered.x[place])


def shown(name: str) -> list[list[Tensor | None]]:
    """The columns of one attack: for each task the image before and after, and their difference."""
    columns = []
    for task in TASKS:
        before, after = pair(task.replace(attack=to_chain(name, "attack")))
        columns.append(
            [before, after, None if before is None else (0.5 + 4 * (after - before)).clamp(0, 1)]
        )
    return columns


def draw(out: Path) -> None:
    """Write the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [
        name
        for name in plugins.names("attacks")
        if plugins.attack_facts(name).trigger
        and "image" in (plugins.kinds("attacks", name) or ("image",))
        and name != "label_flip"
    ]
    half = -(-len(names) // 2)
    figure = Figure(figsize=(13, 1.0 * half + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(half, 13, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, name in enumerate(names):
        row, first = number % half, 7 * (number // half)
        for task, columns in enumerate(shown(name)):
            for place, image in enumerate(columns):
                axes = grid[row, first + 3 * task + place]
                if number % half == 0:
                    axes.set_title(("clean", "triggered", "difference")[place], fontsize=8)
                if image is not None:
                    axes.imshow(
                        image.permute(1, 2, 0).expand(-1, -1, 3).numpy(),
                        interpolation="nearest",
                        vmin=0,
                        vmax=1,
                    )
        grid[row, first].text(
            -0.1,
            0.5,
            name,
            transform=grid[row, first].transAxes,
            ha="right",
            va="center",
            fontsize=9,
        )
    figure.savefig(out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/triggers.png"))
