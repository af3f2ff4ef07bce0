"""How many floating point operations an operator takes, counted as torch's own counter does. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from nbserve.trace.model import Events

Shape = tuple[int, ...]

_TENSOR = re.compile(r"^([a-z_]\w*)\[([\d,]*)\]$")
_NUMBERS = re.compile(r"-?\d+")
# Commas between arguments, not those inside of brackets.
_COMMA = re.compile(r",\s*(?![^\[]*\])")


def flops_of(name: str, detail: str) -> float:
    """The operations of one call with these arguments (see details.call_text); 0 where the name is not known."""
    count = _COUNTS.get(name.rpartition("::")[2])
    if count is None or not detail:
        return 0.0
    try:
        return float(count(_COMMA.split(detail)))
    except (IndexError, ValueError, ZeroDivisionError):
        return 0.0


def flops_by_event(events: Events) -> NDArray[np.float64]:
    """The operations of each event; where one passes on to another that counts them too, only the innermost does."""
    width = len(events.details) + 1
    pairs, pair_of = np.unique(events.name.astype(np.int64) * width + events.detail + 1, return_inverse=True)
    details = ["", *events.details]
    by_pair = [flops_of(events.names[pair // width], details[pair % width]) for pair in pairs.tolist()]
    flops: NDArray[np.float64] = np.array(by_pair, np.float64)[pair_of.ravel()]
    counted = np.flatnonzero(flops)
    parents = events.parent.tolist()
    for i in counted.tolist():
        outer = parents[i]
        while outer >= 0 and flops[outer] >= 0:
            # -1: already known to have a counting event inside, and so have those around it.
            flops[outer] = -1
            outer = parents[outer]
    flops[flops < 0] = 0
    return flops


def type_of(detail: str) -> str:
    """The type of the first tensor among the arguments, such as "float32"; "" when there is none."""
    for argument in _COMMA.split(detail):
        if tensor := _TENSOR.match(argument):
            return tensor[1]
    return ""


def largest_of(detail: str) -> int:
    """How many numbers the largest tensor among the arguments has; 0 when there is none."""
    tensors = [tensor for argument in _COMMA.split(detail) if (tensor := _TENSOR.match(argument))]
    return max((prod(int(size) for size in tensor[2].split(",") if size) for tensor in tensors), default=0)


def _shape(arguments: Sequence[str], position: int) -> Shape:
    tensor = _TENSOR.match(arguments[position])
    if tensor is None:
        raise ValueError(f"{arguments[position]} is no tensor")
    return tuple(int(size) for size in tensor[2].split(",") if size)


def _list(arguments: Sequence[str], position: int, length: int) -> Shape:
    """A list of numbers; a single one stands for all."""
    numbers = tuple(int(number) for number in _NUMBERS.findall(arguments[position]))
    return numbers * length if len(numbers) == 1 else numbers


def _product(left: Shape, right: Shape) -> int:
    *batch, rows, inner = left
    return 2 * prod(batch) * rows * inner * right[-1]


def _mm(arguments: Sequence[str]) -> int:
    return _product(_shape(arguments, 0), _shape(arguments, 1))


def _addmm(arguments: Sequence[str]) -> int:
    return _product(_shape(arguments, 1), _shape(arguments, 2))


def _linear(arguments: Sequence[str]) -> int:
    return 2 * prod(_shape(arguments, 0)) * _shape(arguments, 1)[0]


def _convolution(
    padding: int, stride: int, dilation: int | None, transposed: int | None
) -> Callable[[Sequence[str]], int]:
    """Of a convolution whose arguments stand at these places; None: it is never dilated, or never transposed."""

    def count(arguments: Sequence[str]) -> int:
        images, weight = _shape(arguments, 0), _shape(arguments, 1)
        kernel = weight[2:]
        pads, steps = (_list(arguments, at, len(kernel)) for at in (padding, stride))
        gaps = (1,) * len(kernel) if dilation is None else _list(arguments, dilation, len(kernel))
        if transposed is not None and arguments[transposed] == "True":
            places = images[2:]
        else:
            places = tuple(
                (size + 2 * pad - gap * (width - 1) - 1) // step + 1
                for size, pad, gap, width, step in zip(images[2:], pads, gaps, kernel, steps, strict=True)
            )
        return 2 * images[0] * prod(places) * prod(weight)

    return count


def _attention(arguments: Sequence[str]) -> int:
    query, key, value = (_shape(arguments, position) for position in range(3))
    pairs = prod(query[:-1]) * key[-2]
    return 2 * pairs * (query[-1] + value[-1])


_COUNTS: dict[str, Callable[[Sequence[str]], int]] = {
    "mm": _mm,
    "bmm": _mm,
    "_int_mm": _mm,
    "_scaled_mm": _mm,
    "addmm": _addmm,
    "_addmm_activation": _addmm,
    "baddbmm": _addmm,
    "linear": _linear,
    "mkldnn_linear": _linear,
    "_mkl_linear": _linear,
    "_linear_pointwise": _linear,
    "convolution": _convolution(4, 3, 5, 6),
    "_convolution": _convolution(4, 3, 5, 6),
    "convolution_overrideable": _convolution(4, 3, 5, 6),
    "mkldnn_convolution": _convolution(3, 4, 5, None),
    "_convolution_pointwise": _convolution(3, 4, 5, None),
    "cudnn_convolution": _convolution(2, 3, 4, None),
    "_slow_conv2d_forward": _convolution(5, 4, None, None),
    "_conv_depthwise2d": _convolution(5, 4, 6, None),
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
}
