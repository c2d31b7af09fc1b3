"""A dataset checked as a whole before anything is computed from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backstop.platform.contract import Data, Samples
from backstop.platform.params import BadInput

TENSOR_FORMS = {
    "image": (4, (torch.uint8, torch.float32), "uint8 or float32 (N, C, H, W)"),
    "table": (2, (torch.float32,), "float32 (N, F)"),
    "text": (2, (torch.int64,), "int64 (N, L)"),
}


def scale(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), of x / 255; the
    sums are exact.

    >>> scale(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
    ((0.5,), (0.5,))
    """
    moments = [_channel_scale(channel) for channel in x.unbind(1)]
    means, deviations = zip(*moments, strict=True)
    return means, deviations


def _channel_scale(channel: Tensor) -> tuple[float, float]:
    counts = torch.bincount(channel.flatten(), minlength=256).tolist()
    n, first, second = (_power_sum(counts, power) for power in range(3))
    mean = first / (255 * n)
    deviation = math.sqrt(n * second - first**2) / (255 * n)
    return mean, deviation


def _power_sum(counts: list[int], power: int) -> int:
    """The sum of a power of all values, of which the value i occurs ``counts[i]`` times."""
    return sum(count * value**power for value, count in enumerate(counts))


def checked(data: Data, name: str) -> Data:
    """The data if it is as the contract says, or BadInput.

    >>> short = Samples(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    >>> checked(Data(train=short, test=short, classes=2, kind="table"), "toy")
    Traceback (most recent call last):
    backstop.platform.params.BadInput: dataset toy: train has 3 inputs and 2 labels
    """
    where = f"dataset {name}"
    if data.classes < 2:
        raise BadInput(f"{where}: classes={data.classes}; there are at least 2")
    parts = {"train": data.train, "test": data.test}
    if data.root is not None:
        parts["root"] = data.root
    for part, samples in parts.items():
        check_inputs(samples.x, data.kind, f"{where}: {part}")
        _check_labels(samples, data.classes, f"{where}: {part}")
        _check_like_train(samples.x, data.train.x, f"{where}: {part}")
    _check_scale(data, where)
    if data.client is not None:
        _check_clients(data.client, data.train.y, where)
    return data


def _check_like_train(
    x: Tensor,
    train: Tensor,
    where: str,
) -> None:
    if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
        raise BadInput(f"{where} inputs are {_form(x)}, train inputs are {_form(train)}")


def _check_clients(
    client: Tensor,
    labels: Tensor,
    where: str,
) -> None:
    if client.dtype != torch.int64 or client.shape != labels.shape:
        raise BadInput(
            f"{where}: clients are {_form(client)}; they are int64,"
            f" one for each of the {len(labels)} train samples"
        )
    if client.min() < 0:
        raise BadInput(f"{where}: client {int(client.min())} is negative")


def check_inputs(
    x: Tensor,
    kind: str,
    where: str,
) -> None:
    """BadInput unless the inputs have the form and the values that the contract gives to their
    kind.
    """
    axes, types, form = TENSOR_FORMS[kind]
    if x.ndim != axes or x.dtype not in types or 0 in x.shape:
        raise BadInput(f"{where} inputs are {_form(x)}; {kind} data is {form}, not empty")
    if x.dtype == torch.float32 and not bool(torch.isfinite(x).all()):
        raise BadInput(f"{where} inputs hold NaN or infinity")
    if kind == "image" and x.dtype == torch.float32:
        _check_pixels(x, where)
    if kind == "text":
        _check_token_ids(x, where)


def _check_pixels(x: Tensor, where: str) -> None:
    lowest, highest = float(x.min()), float(x.max())
    if lowest < 0 or highest > 1:
        raise BadInput(
            f"{where} inputs reach from {lowest:g} to {highest:g}; float32 images stay in [0, 1]"
        )


def _check_token_ids(x: Tensor, where: str) -> None:
    if x.min() < 0:
        raise BadInput(f"{where} inputs hold the negative token id {int(x.min())}")
    present = x != 0
    resumed = ~present[:, :-1] & present[:, 1:]
    if bool(resumed.any()):
        raise BadInput(f"{where} inputs hold token id 0 before other ids; 0 only pads on the right")


def _check_labels(
    samples: Samples,
    classes: int,
    where: str,
) -> None:
    x, y = samples
    if y.ndim != 1 or y.dtype != torch.int64:
        raise BadInput(f"{where} labels are {_form(y)}; labels are int64 (N,)")
    if len(x) != len(y):
        raise BadInput(f"{where} has {len(x)} inputs and {len(y)} labels")
    if y.min() < 0 or y.max() >= classes:
        raise BadInput(
            f"{where} labels reach from {int(y.min())} to {int(y.max())};"
            f" they are in 0..{classes - 1}"
        )


def _check_scale(data: Data, where: str) -> None:
    mean, std = data.mean, data.std
    if mean is None and std is None:
        return
    width = data.train.x.shape[1]
    if mean is None or std is None or len(mean) != width or len(std) != width:
        raise BadInput(
            f"{where}: mean and std have one value for each of the {width} channels or features,"
            " or are both None"
        )
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise BadInput(
            f"{where}: mean and std are finite and std is positive; they are {mean} and {std}"
        )


def _form(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = ", ".join(map(str, tensor.shape))
    return f"{dtype} ({shape})"
