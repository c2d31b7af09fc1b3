"""ResNet-18 as torchvision builds it, with GroupNorm unless told otherwise and a stem that fits
small images.

Shapes: (N, C, H, W) → (N, classes), any C; 11,173,962 parameters for (3, 32, 32) and 10 classes.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
table 1; small stem: section 4.2, a 3 x 3 convolution of stride 1 and no pooling. GroupNorm with 32
groups: Y. Wu, K. He, "Group Normalization", ECCV 2018, section 3.1, in place of BatchNorm because
federated averaging of batch statistics fails on non-IID clients: K. Hsieh, A. Phanishayee, O.
Mutlu, P. Gibbons, "The Non-IID Data Quagmire of Decentralized Machine Learning", ICML 2020, section
5.

Deviations: none from torchvision beyond norm and stem. The new stem draws its initial values as
torchvision draws those of all convolutions: K. He et al., "Delving Deep into Rectifiers", ICCV
2015, fan-out form. No pre-trained weights. With ``norm=batch`` images that end as one pixel (up to
8 x 8 pixels with the small stem, 32 x 32 with the large one) cannot be trained on one by one, for
one value has no variance. There a last batch of one sample joins the batch before it, and a run in
which a client has a single sample is refused.

Checked: parameters and logits against torchvision's own model; what is said of the papers is
remembered.

Example:
>>> import torch
>>> net = resnet18()((3, 32, 32), 10)
>>> net(torch.zeros(1, 3, 32, 32)).shape, sum(parameter.numel() for parameter in net.parameters())
(torch.Size([1, 10]), 11173962)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from torch import nn

from backstop.platform.contract import Model

VERSION = 1
KINDS = ("image",)
GROUPS = 32
# pixels: the large stem leaves a 64 x 64 image 2 x 2 in the last stage, the small one 8 x 8
SMALL = 64


def resnet18(
    *,
    norm: Annotated[
        Literal["group", "batch"],
        "batch: running averages are buffers, averaged over the clients that the defense keeps",
    ] = "group",
    stem: Annotated[
        Literal["auto", "small", "large"],
        "small: 3 x 3, stride 1, no pooling; auto: small up to 64 pixels",
    ] = "auto",
) -> Model:
    """ResNet-18 without pre-trained weights."""

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        from torchvision import models

        layer = nn.BatchNorm2d if norm == "batch" else partial(nn.GroupNorm, GROUPS)
        net: nn.Module = models.resnet18(
            weights=None,
            num_classes=classes,
            norm_layer=layer,
        )
        channels, *sides = shape
        if stem == "small" or (stem == "auto" and max(sides) <= SMALL):
            net.conv1 = _convolution(channels, kernel=3, stride=1)
            net.maxpool = nn.Identity()
        elif channels != 3:
            net.conv1 = _convolution(channels, kernel=7, stride=2)
        return net

    return build


def _convolution(
    channels: int,
    *,
    kernel: int,
    stride: int,
) -> nn.Conv2d:
    layer = nn.Conv2d(channels, 64, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
