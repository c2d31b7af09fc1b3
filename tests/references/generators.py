"""The network that makes a trigger of each image, pixel by pixel in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def convolved(image: Array, weight: Array, bias: Array, stride: int) -> Array:
    """A 3 x 3 convolution of one image, zeros around it."""
    height, width = image.shape[1:]
    found = np.zeros((len(weight), -(-height // stride), -(-width // stride)))
    for o, i, j in np.ndindex(*found.shape):
        found[o, i, j] = bias[o]
        for c, a, b in np.ndindex(*weight.shape[1:]):
            row, column = i * stride + a - 1, j * stride + b - 1
            if 0 <= row < height and 0 <= column < width:
                found[o, i, j] += weight[o, c, a, b] * image[c, row, column]
    return found


def perturbation(w: Sequence[Array], images: Array) -> Array:
    """T of each image."""
    lines = []
    for image in images:
        wide = np.maximum(convolved(image, w[0], w[1], 1), 0)
        deep = np.maximum(convolved(wide, w[2], w[3], 2), 0)
        (_, height, width), (_, rows, columns) = wide.shape, deep.shape
        up = np.array(
            [
                [
                    [plane[i * rows // height, j * columns // width] for j in range(width)]
                    for i in range(height)
                ]
                for plane in deep
            ]
        )
        lines.append(np.tanh(convolved(np.concatenate([wide, up]), w[4], w[5], 1)))
    return np.stack(lines)
