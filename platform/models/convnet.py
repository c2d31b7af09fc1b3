"""ConvNet: equal modules of convolution, BatchNorm, rectifier and pooling, and a linear layer.

conv width @ 3 x 3, BatchNorm, relu, pool 2 for each of ``modules``; linear classes.

Shapes: (N, C, H, W) → (N, classes), H and W at least 2^modules; 30,058 parameters for (3, 32, 32),
10 classes, a width of 32 and 4 modules, and 256 buffers.

Source: O. Vinyals, C. Blundell, T. Lillicrap, K. Kavukcuoglu, D. Wierstra, "Matching Networks for
One Shot Learning", NeurIPS 2016, the experiments on Omniglot: four modules of 64 filters.

Deviations: the width is 32 unless told otherwise, and a linear layer of its own takes what the last
module leaves, where the paper compares embeddings. Convolutions have no bias, which BatchNorm would
take away again. The initial values are those of ``torch.nn``. Clients train one after another, as
with any BatchNorm. A last batch of one sample joins the batch before it where the last module
leaves one pixel.

Checked: layers and sizes by hand; the paper's are remembered.

Example:
>>> import torch
>>> net = convnet()((3, 32, 32), 10)
>>> net(torch.zeros(2, 3, 32, 32)).shape, sum(parameter.numel() for parameter in net.parameters())
(torch.Size([2, 10]), 30058)
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from torch import nn

from backstop.platform.contract import Model
from backstop.platform.params import BadInput, Range

VERSION = 1
KINDS = ("image",)


def convnet(
    *,
    width: Annotated[
        int,
        Range(1, 1024, log=True, search=(8, 128)),
        "filters of each convolution",
    ] = 32,
    modules: Annotated[
        int,
        Range(1, 8, search=(1, 4)),
        "modules, each of which halves the sides",
    ] = 4,
) -> Model:
    """ConvNet with BatchNorm. Building it raises BadInput for images that are too small."""

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        channels, *sides = shape
        if min(sides) < 2**modules:
            raise BadInput(
                f"model convnet: images of {sides[0]} x {sides[1]} are too small for"
                f" modules={modules}; both sides are at least {2**modules}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, modules + 1):
            layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            channels = width
        height, breadth = (side // 2**modules for side in sides)
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(width * height * breadth, classes)
        return nn.Sequential(layers)

    return build
