"""The convolutional network of PyTorch's CIFAR-10 tutorial, sized to the input.

conv 6 @ 5 x 5, pool 2, relu; conv 16 @ 5 x 5, pool 2, relu; linear 120, relu; linear 84, relu;
linear classes.

Shapes: (N, C, H, W) → (N, classes), H and W at least 4; 62,006 parameters for (3, 32, 32) and 10
classes.

Source: PyTorch tutorial "Training a Classifier",
https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html, after LeNet-5: Y. LeCun, L.
Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998.

Deviations: the rectifier follows the pooling; max(0, ·) is monotone, so the values are equal and
there are a quarter as many to rectify. A convolution and its pooling are one layer, which is faster
and has the same values. Images with a side below 16, for which two unpadded
convolutions leave nothing, are padded by 2. The initial values are those of ``torch.nn.Conv2d`` and
``torch.nn.Linear``.

Example:
>>> import torch
>>> net = cnn()((3, 32, 32), 10)
>>> net(torch.zeros(2, 3, 32, 32)).shape, sum(parameter.numel() for parameter in net.parameters())
(torch.Size([2, 10]), 62006)
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from backstop.platform.contract import Model
from backstop.platform.params import BadInput
from backstop.platform.training.pooling import PooledConv2d

VERSION = 1
KINDS = ("image",)


def cnn() -> Model:
    """The tutorial's network. Building it raises BadInput for images with a side below 4."""
    return _build


def _build(shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, *sides = shape
    if min(sides) < 4:
        raise BadInput(
            f"model cnn: images of {sides[0]} x {sides[1]} are too small; both sides are at least 4"
        )
    pad = 0 if min(sides) >= 16 else 2
    height, width = (((side - 4 + 2 * pad) // 2 - 4 + 2 * pad) // 2 for side in sides)
    return nn.Sequential(
        OrderedDict(
            conv1=PooledConv2d(channels, 6, 5, padding=pad),
            relu1=nn.ReLU(),
            conv2=PooledConv2d(6, 16, 5, padding=pad),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            linear1=nn.Linear(16 * height * width, 120),
            relu3=nn.ReLU(),
            linear2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            output=nn.Linear(84, classes),
        )
    )
