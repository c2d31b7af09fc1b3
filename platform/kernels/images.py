"""Loops over images that training needs: how they are laid out for a convolution, and the gradient
of a maximum over windows of 2 × 2.

Compiled as in :mod:`backstop.platform.kernels.cpu`: without the interpreter's lock, kept beside the
source.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@numba.njit(nogil=True, cache=True)
def lay_out(
    images: Bytes,
    values: Floats,
    out: Floats,
) -> None:
    """Write images (b, c, h, w) into ``out`` (b, h, w, c), each pixel as its channel's value of
    ``values`` (c, 256).
    """
    samples, channels, height, _ = images.shape
    for b in range(samples):
        for k in range(channels):
            plane, table = images[b, k], values[k]
            for i in range(height):
                line, written = plane[i], out[b, i]
                for j in range(len(line)):
                    written[j, k] = table[line[j]]


@numba.njit(
    nogil=True,
    cache=True,
    fastmath={"nnan", "nsz"},
)
def spread(
    windows: Floats,
    top: Floats,
    grad: Floats,
    out: Floats,
) -> None:
    """Write into ``out`` (b, 2h, 2w, c) the gradient (b, h, w, c) of the maxima ``top``, each at
    the first place of its window that has the maximum; ``windows`` (b, h, w, 4, c) are the values,
    row by row. What ``out`` has beyond 2h and 2w is not touched.
    """
    samples, height, width, channels = top.shape
    for b in range(samples):
        for i in range(height):
            for j in range(width):
                for k in range(channels):
                    most, value = top[b, i, j, k], grad[b, i, j, k]
                    first = windows[b, i, j, 0, k] == most
                    second = (windows[b, i, j, 1, k] == most) & (not first)
                    third = (windows[b, i, j, 2, k] == most) & (not (first | second))
                    out[b, 2 * i, 2 * j, k] = value if first else 0.0
                    out[b, 2 * i, 2 * j + 1, k] = value if second else 0.0
                    out[b, 2 * i + 1, 2 * j, k] = value if third else 0.0
                    rest = first | second | third
                    out[b, 2 * i + 1, 2 * j + 1, k] = 0.0 if rest else value
