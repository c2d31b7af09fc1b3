"""The loop that lays images out for a convolution.

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
