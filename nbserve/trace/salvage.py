"""Reads the events of a Chrome trace, and of a damaged one those that are whole. Pure; kernel or terminal."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from nbserve.errors import TraceError

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 4096
_LIST_START = re.compile(r'"traceEvents"\s*:\s*\[')
_BASE_TIME = re.compile(r'"baseTimeNanoseconds"\s*:\s*(-?\d{1,20})\b')
_BETWEEN = re.compile(r"[\s,]*")
_NEXT_EVENT = re.compile(r"\}\s*,\s*(?=\{)")


class Loaded(NamedTuple):
    """Events as they were written, in microseconds after `base_ns`; `notes` say what was lost."""

    events: list[Any]
    base_ns: Any
    notes: list[str]


def load(path: str | Path) -> Loaded:
    """The events of the trace at `path`, gzipped or not; TraceError when nothing of it can be used."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TraceError(f"the trace {path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise TraceError(f"the trace {path} is empty: its worker ended before it was written")
    notes: list[str] = []
    if data.startswith(_GZIP_MAGIC[: len(data)]):
        data = _gunzip(data, notes)
    return _load_whole(data, path, notes) or _load_pieces(data, path, notes)


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
        for at in range(0, len(data), _CHUNK_BYTES):
            parts.append(stream.decompress(data[at : at + _CHUNK_BYTES]))
    except zlib.error:
        pass
    return b"".join(parts)


def _load_whole(data: bytes, path: str | Path, notes: list[str]) -> Loaded | None:
    """The events of a trace without damage, None for another."""
    try:
        trace = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    events = trace.get("traceEvents") if isinstance(trace, dict) else trace
    if not isinstance(events, list):
        raise TraceError(f"{path} is JSON, but no Chrome trace: it has no list of traceEvents")
    return Loaded(events, trace.get("baseTimeNanoseconds", 0) if isinstance(trace, dict) else 0, notes)


def _load_pieces(data: bytes, path: str | Path, notes: list[str]) -> Loaded:
    text = data.decode(errors="replace")
    start = _LIST_START.search(text)
    at = start.end() if start else _start_of_bare_list(text)
    if at is None:
        raise TraceError(f"{path} is no Chrome trace, or it ends before the first event: it has no list of traceEvents")
    events, damaged = _pieces(text, at)
    if not any(isinstance(event, dict) for event in events):
        raise TraceError(f"the trace {path} ends before its first event is complete")
    places = f" and damaged in {damaged} places" if damaged else ""
    notes.append(f"The trace is not complete{places}; the {len(events):,} events that are whole are shown.")
    base = _BASE_TIME.search(text)
    return Loaded(events, int(base[1]) if base else 0, notes)


def _start_of_bare_list(text: str) -> int | None:
    opening = re.match(r"\s*\[(?=\s*\{)", text)
    return opening.end() if opening else None


def _pieces(text: str, at: int) -> tuple[list[Any], int]:
    """The whole events from `at` on, and how many damaged ones were passed over."""
    decode = json.JSONDecoder().raw_decode
    events: list[Any] = []
    damaged = 0
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if at >= len(text) or text[at] == "]":
            return events, damaged
        try:
            event, at = decode(text, at)
            events.append(event)
        except (ValueError, RecursionError):
            following = _NEXT_EVENT.search(text, at)
            if following is None:
                return events, damaged
            damaged += 1
            at = following.end()
