"""What an event says of its arguments, as one readable text: "float32[8,64], float32[64], [1, 1]". Pure."""

from __future__ import annotations

from typing import Any

import orjson

# How torch's profiler names the types of tensors, and what users call them.
_TYPES = {
    "float": "float32",
    "double": "float64",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
    "long int": "int64",
    "long": "int64",
    "int": "int32",
    "short int": "int16",
    "signed char": "int8",
    "unsigned char": "uint8",
    "c10::complex<float>": "complex64",
    "c10::complex<double>": "complex128",
}
_MAX_VALUE_LENGTH = 60
_MAX_LIST_LENGTH = 8


class Details:
    """Numbers each distinct text once; most events of a trace share their arguments with many others."""

    def __init__(self) -> None:
        self._number_of_arguments: dict[bytes, int] = {}
        self._number_of_text: dict[str, int] = {}

    def number(self, arguments: dict[str, Any]) -> int:
        """The number of the text of these `args`, -1 when they say nothing of interest."""
        shapes = arguments.get("Input Dims")
        if shapes:
            types, values = arguments.get("Input type"), arguments.get("Concrete Inputs")
            key = orjson.dumps((shapes, types, values))
            number = self._number_of_arguments.get(key)
            if number is None:
                number = self._number_of_arguments[key] = self._of_text(call_text(shapes, types, values))
            return number
        if "grid" in arguments or "bytes" in arguments:
            return self._of_text(_device_text(arguments))
        return -1

    def texts(self) -> list[str]:
        return list(self._number_of_text)

    def _of_text(self, text: str) -> int:
        return self._number_of_text.setdefault(text, len(self._number_of_text))


def call_text(shapes: list[Any], types: Any, values: Any) -> str:
    """The arguments of one operator."""
    types = types if isinstance(types, list) else []
    values = values if isinstance(values, list) else []
    return ", ".join(
        _argument(shape, str(types[i]) if i < len(types) else "", str(values[i]) if i < len(values) else "")
        for i, shape in enumerate(shapes)
    )


def _argument(shape: Any, kind: str, value: str) -> str:
    if value:
        return value if len(value) <= _MAX_VALUE_LENGTH else f"{value[:_MAX_VALUE_LENGTH]}…"
    if isinstance(shape, list) and shape and isinstance(shape[0], list):
        more = ", …" if len(shape) > _MAX_LIST_LENGTH else ""
        return f"[{', '.join(_tensor('', each) for each in shape[:_MAX_LIST_LENGTH])}{more}]"
    if not kind and not shape:
        return "None"
    return kind if kind in ("Scalar", "ScalarList") else _tensor(kind, shape)


def _tensor(kind: str, shape: Any) -> str:
    sizes = ",".join(map(str, shape)) if isinstance(shape, list) else str(shape)
    return f"{_TYPES.get(kind, kind)}[{sizes}]"


def _device_text(arguments: dict[str, Any]) -> str:
    if "grid" in arguments:
        return f"grid {_sizes(arguments['grid'])}, block {_sizes(arguments.get('block'))}"
    return f"{arguments['bytes']} bytes"


def _sizes(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
