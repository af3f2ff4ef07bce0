"""Reads the events of a Chrome trace, and of a damaged one those that are whole. Pure; kernel or terminal."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nbserve.errors import TraceError

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_CHUNK_BYTES = 4096
_LIST_START = re.compile(rb'"traceEvents"\s*:\s*\[')
_BARE_LIST_START = re.compile(rb"\s*\[(?=\s*\{)")
_BASE_TIME = re.compile(rb'"baseTimeNanoseconds"\s*:\s*(-?\d{1,20})\b')
_BETWEEN = re.compile(r"[\s,]*")
_NEXT_EVENT = re.compile(r"\}\s*,\s*(?=\{)")

# How Kineto ends an event. Read in small pieces, a large trace takes half the time and a tenth of the memory: the
# garbage collector does not go through millions of events again and again.
_EVENT_END = b"\n  },"
_CHUNK_BYTES = 1 << 14


@dataclass
class Loaded:
    """The events as they were written, in microseconds after `base_ns`; `notes` say what was lost, once all are read.

    `chunks` can be gone through once.
    """

    chunks: Iterator[list[Any]]
    base_ns: Any
    notes: list[str] = field(default_factory=list)

    def events(self) -> Iterator[Any]:
        for chunk in self.chunks:
            yield from chunk


def load(path: str | Path) -> Loaded:
    """The events of the trace at `path`, gzipped or not; TraceError when nothing of it can be used."""
    data = _content(path)
    notes: list[str] = []
    if data.startswith(_GZIP_MAGIC[: len(data)]):
        data = _gunzip(data, notes)
    named = _LIST_START.search(data)
    start = named or _BARE_LIST_START.match(data)
    if start is None:
        raise TraceError(_why_no_trace(data, path))
    base = _BASE_TIME.search(data, 0, start.start()) or _BASE_TIME.search(data, max(start.end(), len(data) - 1000))
    loaded = Loaded(iter(()), int(base[1]) if base else 0, notes)
    loaded.chunks = _chunks(data, start.end(), b'{"traceEvents":[' if named else b"[", path, notes)
    return loaded


def _content(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TraceError(f"the trace {path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise TraceError(f"the trace {path} is empty: its worker ended before it was written")
    return data


def _why_no_trace(data: bytes, path: str | Path) -> str:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return f"{path} is no Chrome trace, or it ends before the first event: it has no list of traceEvents"
    return f"{path} is JSON, but no Chrome trace: it has no list of traceEvents"


def _gunzip(data: bytes, notes: list[str]) -> bytes:
    whole, parts = True, []
    while data and whole:
        stream = zlib.decompressobj(wbits=31)
        try:
            parts.append(stream.decompress(data))
            whole = stream.eof
        except zlib.error:
            parts.append(_gunzip_until_error(data))
            whole = False
        data = stream.unused_data.lstrip(b"\0")
    if not whole:
        notes.append("The compressed trace is cut off or damaged; what comes before that place is shown.")
    return b"".join(parts)


def _gunzip_until_error(data: bytes) -> bytes:
    stream, parts = zlib.decompressobj(wbits=31), []
    try:
        for at in range(0, len(data), _GZIP_CHUNK_BYTES):
            parts.append(stream.decompress(data[at : at + _GZIP_CHUNK_BYTES]))
    except zlib.error:
        pass
    return b"".join(parts)


def _chunks(data: bytes, at: int, opening: bytes, path: str | Path, notes: list[str]) -> Iterator[list[Any]]:
    """The events from `at` on; `opening` makes what is left after the last whole chunk JSON again."""
    found, damage = 0, _Damage()
    while (end := data.find(_EVENT_END, at + _CHUNK_BYTES)) >= 0:
        end += len(_EVENT_END)
        chunk = _parsed(b"[" + data[at : end - 1] + b"]")
        yield (events := damage.whole_of(data[at:end]) if chunk is None else chunk)
        found, at = found + len(events), end
    rest = _parsed(opening + data[at:])
    if isinstance(rest, dict):
        rest = rest["traceEvents"]
    yield (events := damage.whole_of(data[at:]) if rest is None else rest)
    found += len(events)
    if not found and damage.is_any:
        raise TraceError(f"the trace {path} ends before its first event is complete")
    if damage.is_any:
        notes.append(damage.note(found))


def _parsed(text: bytes) -> Any:
    """The JSON, None for what is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


class _Damage:
    """Saves what can be saved, and counts the rest."""

    def __init__(self) -> None:
        self.is_any = False
        self._places = 0

    def note(self, found: int) -> str:
        places = f" (damaged places: {self._places:,})" if self._places else ""
        return f"The trace is not complete{places}; what is whole is shown: {found:,} events."

    def whole_of(self, data: bytes) -> list[Any]:
        """The whole events of a piece of a trace that cannot be read at once."""
        self.is_any = True
        text, at = data.decode(errors="replace"), 0
        events: list[Any] = []
        decode = json.JSONDecoder().raw_decode
        while True:
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
            if at >= len(text) or text[at] == "]":
                return events
            try:
                event, end = decode(text, at)
                # Once more, as what Python's own reader lets pass (half characters, nan) nobody else can write again.
                events.append(orjson.loads(orjson.dumps(event)))
                at = end
            except (ValueError, TypeError, RecursionError):
                following = _NEXT_EVENT.search(text, at)
                if following is None:
                    return events
                self._places += 1
                at = following.end()
