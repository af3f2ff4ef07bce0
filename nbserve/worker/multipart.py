"""multipart/form-data bodies. Runs in the worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from nbserve.errors import BadRequest
from nbserve.handler import UploadedFile


def decode_multipart(content_type: bytes, body: memoryview) -> dict[str, Any]:
    """The parts by name: str for a field, UploadedFile for a file, a list where a name comes more than once."""
    return gather((part.name, part.value()) for part in parts_of(content_type, body))


def gather(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Name and value pairs as a dict; the values of a repeated name as a list."""
    lists: dict[str, list[Any]] = {}
    for name, value in fields:
        lists.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in lists.items()}


@dataclass
class Part:
    """One part, filled while the body is read."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    is_complete: bool = False

    @property
    def name(self) -> str:
        return _text(self._disposition().get(b"name", b""))

    @property
    def filename(self) -> str | None:
        filename = self._disposition().get(b"filename")
        return None if filename is None else _text(filename)

    @property
    def content_type(self) -> str:
        return self.headers.get(b"content-type", b"").decode("latin-1")

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    def value(self) -> str | UploadedFile:
        if self.filename is None:
            return _text(self.data)
        return UploadedFile(self.filename, self.content_type or "application/octet-stream", self.data)

    def _disposition(self) -> dict[bytes, bytes]:
        return parse_options_header(self.headers.get(b"content-disposition", b""))[1]


class PartReader:
    """Collects the parts that the parser announces, in the order of its callbacks."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._name = b""
        self._value = b""

    def on_part_begin(self) -> None:
        self.parts.append(Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self.parts[-1].headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].chunks.append(data[start:end])

    def on_part_end(self) -> None:
        self.parts[-1].is_complete = True


def parts_of(content_type: bytes, body: memoryview) -> list[Part]:
    """The parts of a body; raises BadRequest when it is damaged or cut off."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadRequest("the content type multipart/form-data names no boundary")
    reader = PartReader()
    callbacks: Any = {name: getattr(reader, name) for name in dir(reader) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(bytes(body))
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"the body is no multipart form: {error}") from None
    if not all(part.is_complete for part in reader.parts):
        raise BadRequest("the multipart form ends before its last part does")
    return reader.parts


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadRequest("a field of the multipart form is not UTF-8 text") from None
