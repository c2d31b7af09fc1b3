"""Loops of a convolution with 5 × 5 kernels and the maximum over windows of 2 × 2 behind it.

*Forward.* Where there are few output channels, the lanes of a register are windows of a row: its
four places stand in four registers, and their maximum needs no other lane.

*Backward.* A maximum comes from one of the four places of its window, and only that place has a
gradient: both gradients of the convolution are sums over the windows, a quarter of what a
convolution that knows nothing of the maxima adds up. Here the lanes are a row of a kernel, 5 ×
channels values side by side. Behind it they are multiplied by zeros or never looked at; where a
gradient is not finite, the zeros become NaN.

Loops of this length are too short for the compiler to vectorize by itself. No two lanes are ever
added to each other, so bits do not follow the width of a vector register.

Compiled as in :mod:`backstop.platform.kernels.cpu`. The lanes are in this file because numba keeps
compiled code by the file of the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Typed = tuple[Any, Callable[..., Any]]  # a signature and what writes its instructions
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

SIDE = 5  # of a kernel
LANES = 16  # one register with AVX-512, two with AVX2
VECTOR = ir.VectorType(ir.FloatType(), LANES)
FUSED = ("contract",)  # a product and its sum are rounded once where the processor can
TOGETHER = 3  # outputs: with four places each they are twelve sums, which fit the registers
NONE, ONE, TWO, THREE = np.float32(0), np.float32(1), np.float32(2), np.float32(3)

compiled: Decorator = numba.njit(nogil=True, cache=True)
instruction: Decorator = intrinsic


# -- lanes


class _LanesType(types.Type):
    """LANES values of float32, as compiled code holds them."""


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)  # type: ignore[no-untyped-call]


LANES_TYPE = _LanesType("lanes")


def _address(
    context: Any,
    builder: ir.IRBuilder,
    kind: Any,
    array: ir.Value,
    index: ir.Value,
) -> ir.Value:
    """Where the lanes from an index of a flat array stand."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


def _spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """One value in all lanes."""
    zero = ir.Constant(ir.IntType(32), 0)
    blank = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(blank, value, zero)
    same = ir.Constant(ir.VectorType(zero.type, LANES), [0] * LANES)
    return builder.shuffle_vector(first, blank, same)


@instruction
def _every(_: Any, _value: Any) -> Typed:
    """One value in all lanes."""

    def emit(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> ir.Value:
        return _spread(builder, given[0])

    return LANES_TYPE(types.float32), emit


@instruction
def _read(
    _: Any,
    values: Any,
    _start: Any,
) -> Typed:
    """The values from a place of a flat array on."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        address = _address(context, builder, signature.args[0], *given)
        return builder.load(address, align=4)

    return LANES_TYPE(values, types.intp), emit


@instruction
def _write(
    _: Any,
    values: Any,
    _start: Any,
    _lanes: Any,
) -> Typed:
    """Write lanes from a place of a flat array on."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        array, index, written = given
        address = _address(context, builder, signature.args[0], array, index)
        builder.store(written, address, align=4)
        return context.get_dummy_value()

    return types.void(values, types.intp, LANES_TYPE), emit


@instruction
def _plus(
    _: Any,
    _total: Any,
    _lanes: Any,
    _factor: Any,
) -> Typed:
    """Total + factor · lanes."""

    def emit(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> ir.Value:
        added_to, multiplied, single = given
        product = builder.fmul(multiplied, _spread(builder, single), flags=FUSED)
        return builder.fadd(added_to, product, flags=FUSED)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, types.float32), emit


@instruction
def _if_larger(
    _: Any,
    _value: Any,
    _most: Any,
    _one: Any,
    _other: Any,
) -> Typed:
    """Of ``one`` the lanes in which the value is larger than the most or a NaN, else of the
    ``other``.
    """

    def emit(_: Any, builder: ir.IRBuilder, __: Any, given: Any) -> ir.Value:
        value, most, one, other = given
        is_larger = builder.fcmp_ordered(">", value, most)
        is_nan = builder.fcmp_unordered("uno", value, value)
        return builder.select(builder.or_(is_larger, is_nan), one, other)

    return LANES_TYPE(*[LANES_TYPE] * 4), emit


# -- the rows of a kernel

Rows = Any  # five lanes, one of each row


@compiled
def _no_rows() -> Rows:
    none = _every(NONE)
    return none, none, none, none, none


@compiled
def _read_rows(
    values: Floats,
    start: int,
    step: int,
) -> Rows:
    """Lanes of five rows that are ``step`` values apart."""
    return (
        _read(values, start),
        _read(values, start + step),
        _read(values, start + 2 * step),
        _read(values, start + 3 * step),
        _read(values, start + 4 * step),
    )


@compiled
def _write_rows(
    values: Floats,
    start: int,
    step: int,
    rows: Rows,
) -> None:
    """The way back."""
    _write(values, start, rows[0])
    _write(values, start + step, rows[1])
    _write(values, start + 2 * step, rows[2])
    _write(values, start + 3 * step, rows[3])
    _write(values, start + 4 * step, rows[4])


@compiled
def _plus_rows(
    total: Rows,
    rows: Rows,
    factor: float,
) -> Rows:
    """Total + factor · rows."""
    return (
        _plus(total[0], rows[0], factor),
        _plus(total[1], rows[1], factor),
        _plus(total[2], rows[2], factor),
        _plus(total[3], rows[3], factor),
        _plus(total[4], rows[4], factor),
    )


# -- forward

Sums = Any  # six lanes: of three outputs at the left places of windows, then at the right ones


@compiled
def _biases(bias: Floats, o: int) -> Sums:
    """Those of three outputs, from which their sums start."""
    first, second, third = _every(bias[o]), _every(bias[o + 1]), _every(bias[o + 2])
    return first, second, third, first, second, third


@compiled
def _plus_tap(
    total: Sums,
    left: Any,
    right: Any,
    kernels: Floats,
    at: int,
) -> Sums:
    """Add one value of three kernels times what it meets at each place."""
    first, second, third = kernels[at], kernels[at + 1], kernels[at + 2]
    return (
        _plus(total[0], left, first),
        _plus(total[1], left, second),
        _plus(total[2], left, third),
        _plus(total[3], right, first),
        _plus(total[4], right, second),
        _plus(total[5], right, third),
    )


@compiled
def _plus_row(
    total: Sums,
    image: Floats,
    start: int,
    half: int,
    kernels: Floats,
    at: int,
) -> Sums:
    """Add one row of three kernels times a row of the image: even columns from ``start``, odd ones
    ``half`` later.
    """
    a, b = _read(image, start), _read(image, start + half)
    c, d = _read(image, start + 1), _read(image, start + half + 1)
    e, f = _read(image, start + 2), _read(image, start + half + 2)
    total = _plus_tap(total, a, b, kernels, at)
    total = _plus_tap(total, b, c, kernels, at + TOGETHER)
    total = _plus_tap(total, c, d, kernels, at + 2 * TOGETHER)
    total = _plus_tap(total, d, e, kernels, at + 3 * TOGETHER)
    return _plus_tap(total, e, f, kernels, at + 4 * TOGETHER)


@compiled
def _write_largest(
    values: Any,
    most: Floats,
    places: Floats,
    start: int,
) -> None:
    """The largest of four lanes and which it is: the first as large or, as in PyTorch, the last
    NaN.
    """
    first, second, third, fourth = values
    place = _if_larger(second, first, _every(ONE), _every(NONE))
    largest = _if_larger(second, first, second, first)
    place = _if_larger(third, largest, _every(TWO), place)
    largest = _if_larger(third, largest, third, largest)
    place = _if_larger(fourth, largest, _every(THREE), place)
    _write(places, start, place)
    _write(most, start, _if_larger(fourth, largest, fourth, largest))


@compiled
def _lay_in_halves(
    pixels: Floats,
    pad: int,
    half: int,
    out: Floats,
) -> None:
    """Write an image (H, W, c) into ``out``: plane after plane, of each padded row the even columns
    and then the odd ones.
    """
    rows, _, channels = pixels.shape
    plane = (rows + 2 * pad) * 2 * half
    for row in range(rows):
        line = pixels[row].reshape(-1)
        for k in range(channels):
            for first in range(2):
                column = first + pad
                start = k * plane + (row + pad) * 2 * half + column % 2 * half + column // 2
                values = line[first * channels + k :: 2 * channels]
                written = out[start : start + len(values)]
                for n in range(len(values)):
                    written[n] = values[n]


@compiled
def _sum_windows(
    image: Floats,
    start: int,
    plane: int,
    half: int,
    kernels: Floats,
    channels: int,
    biases: Sums,
) -> tuple[Sums, Sums]:
    """What three kernels give at the upper and the lower places of a row of windows, whose first
    value in the image is at ``start``.
    """
    upper, lower, at = biases, biases, 0
    for _ in range(channels):
        row = start
        for _ in range(SIDE):
            upper = _plus_row(upper, image, row, half, kernels, at)
            row += 2 * half
            lower = _plus_row(lower, image, row, half, kernels, at)
            at += SIDE * TOGETHER
        start += plane
    return upper, lower


@compiled
def convolved_maxima(
    x: Floats,
    pad: int,
    weight: Floats,
    bias: Floats,
    top: Floats,
    places: Bytes,
) -> None:
    """Convolve x (b, H, W, c) and write the maxima as :func:`maxima` does. Kernels and biases are
    in groups of three: (groups, c, 5, 5, 3) and (groups · 3,), filled up with what is never looked
    at.
    """
    samples, rows, columns, channels = x.shape
    height, width, outputs = top.shape[1:]
    half = (columns + 2 * pad + 1) // 2
    plane = (rows + 2 * pad) * 2 * half
    wide = -(-width // LANES) * LANES
    image = np.zeros(channels * plane + 2 * LANES, np.float32)
    most = np.empty(bias.size * wide, np.float32)
    sources = np.empty(bias.size * wide, np.float32)
    kernels = weight.reshape(-1)
    size = channels * SIDE * SIDE
    for b in range(samples):
        _lay_in_halves(x[b], pad, half, image)
        for i in range(height):
            for o in range(0, bias.size, TOGETHER):
                group, biases = kernels[o * size : (o + TOGETHER) * size], _biases(bias, o)
                for lane in range(0, wide, LANES):
                    corner = 4 * i * half + lane
                    sums = _sum_windows(image, corner, plane, half, group, channels, biases)
                    _write_group(sums, most, sources, o * wide + lane, wide)
            for o in range(outputs):
                line = slice(o * wide, o * wide + width)
                _move(most[line], top[b, i, :, o])
                _move(sources[line], places[b, i, :, o])


@compiled
def _write_group(
    sums: tuple[Sums, Sums],
    most: Floats,
    places: Floats,
    start: int,
    wide: int,
) -> None:
    """The largest of the four places of each window, for three outputs."""
    upper, lower = sums
    first = upper[0], upper[3], lower[0], lower[3]
    second = upper[1], upper[4], lower[1], lower[4]
    third = upper[2], upper[5], lower[2], lower[5]
    _write_largest(first, most, places, start)
    _write_largest(second, most, places, start + wide)
    _write_largest(third, most, places, start + 2 * wide)


@compiled
def _move(values: Floats, out: npt.NDArray[Any]) -> None:
    for n in range(len(values)):
        out[n] = values[n]


@compiled
def maxima(
    values: Floats,
    strides: Ints,
    steps: Ints,
    top: Floats,
    places: Bytes,
) -> None:
    """Write into ``top`` (b, h, w, o) the maxima of the windows and into ``places`` which of the
    four values it is: the first that is as large or, as in PyTorch, the last NaN.

    ``values`` are flat; ``strides`` lead from one sample, row and column of windows to the next,
    ``steps`` to the four places of a window. Channels stand side by side.
    """
    samples, height, width, channels = top.shape
    second, third, fourth = steps[1], steps[2], steps[3]
    for b in range(samples):
        for i in range(height):
            for j in range(width):
                corner = b * strides[0] + i * strides[1] + j * strides[2]
                p = values[corner : corner + channels]
                q = values[corner + second : corner + second + channels]
                r = values[corner + third : corner + third + channels]
                s = values[corner + fourth : corner + fourth + channels]
                most, places_here = top[b, i, j], places[b, i, j]
                for k in range(channels):
                    most[k], places_here[k] = _largest(p[k], q[k], r[k], s[k])


@compiled
def _largest(
    first: float,
    second: float,
    third: float,
    fourth: float,
) -> Any:
    """The largest of four values and which it is."""
    most, place = first, np.uint8(0)
    most, place = _larger(most, place, second, np.uint8(1))
    most, place = _larger(most, place, third, np.uint8(2))
    return _larger(most, place, fourth, np.uint8(3))


@compiled
def _larger(
    most: float,
    place: int,
    value: float,
    its_place: int,
) -> Any:
    """The larger of two values with its place: on a tie the first, but a NaN whatever came."""
    replaces = (value > most) | np.isnan(value)
    return (value if replaces else most), (its_place if replaces else place)


# -- backward


@compiled
def _corners(
    height: int,
    width: int,
    line: int,
    channels: int,
) -> Ints:
    """Where each window begins in an image whose rows are ``line`` values long."""
    corners = np.empty(height * width, np.int64)
    for i in range(height):
        for j in range(width):
            corners[i * width + j] = 2 * i * line + 2 * j * channels
    return corners


@compiled
def weight_gradient(
    x: Floats,
    pad: int,
    grad: Floats,
    places: Bytes,
    out: Floats,
) -> None:
    """Add to ``out`` (o, 5, lanes) the gradient of the kernels, row by row, from that of the maxima
    (b, h, w, o); x is (b, H, W, c), and the lanes behind 5 c are not part of the answer.

    Windows are added sample by sample, so that no sum is longer than a sample's windows.
    """
    samples, rows, columns, channels = x.shape
    height, width, outputs = grad.shape[1:]
    wide = out.shape[2]
    line = (columns + 2 * pad) * channels
    corners = _corners(height, width, line, channels)
    steps = np.array([0, channels, line, line + channels])
    image = np.zeros((rows + 2 * pad) * line + LANES, np.float32)
    sums = out.reshape(-1)
    for b in range(samples):
        for row in range(rows):
            start = (row + pad) * line + pad * channels
            image[start : start + columns * channels] = x[b, row].reshape(-1)
        grads, sources = grad[b].reshape(-1), places[b].reshape(-1)
        for o in range(outputs):
            for lane in range(0, wide, LANES):
                total = _no_rows()
                window = o
                for corner in corners:
                    start = corner + steps[sources[window]] + lane
                    patch = _read_rows(image, start, line)
                    total = _plus_rows(total, patch, grads[window])
                    window += outputs
                start = o * SIDE * wide + lane
                before = _read_rows(sums, start, wide)
                _write_rows(sums, start, wide, _plus_rows(before, total, ONE))


@compiled
def input_gradient(
    weight: Floats,
    pad: int,
    grad: Floats,
    places: Bytes,
    out: Floats,
) -> None:
    """Write into ``out`` (b, H, W, c) the gradient of the images from that of the maxima (b, h, w,
    o); ``weight`` (o, 5, lanes) are the kernels, row by row, with zeros in the lanes behind 5 c.
    """
    samples, rows, columns, channels = out.shape
    height, width, outputs = grad.shape[1:]
    wide = weight.shape[2]
    line = (columns + 2 * pad) * channels
    corners = _corners(height, width, line, channels)
    steps = np.array([0, channels, line, line + channels])
    image = np.zeros((rows + 2 * pad) * line + LANES, np.float32)
    kernels = weight.reshape(-1)
    for b in range(samples):
        image[:] = 0.0
        grads, sources = grad[b].reshape(-1), places[b].reshape(-1)
        window = 0
        for corner in corners:
            for o in range(outputs):
                start = corner + steps[sources[window]]
                for lane in range(0, wide, LANES):
                    kernel = _read_rows(kernels, o * SIDE * wide + lane, wide)
                    before = _read_rows(image, start + lane, line)
                    after = _plus_rows(before, kernel, grads[window])
                    _write_rows(image, start + lane, line, after)
                window += 1
        for row in range(rows):
            start = (row + pad) * line + pad * channels
            out[b, row].reshape(-1)[:] = image[start : start + columns * channels]
