"""From a request's bytes to what a handler gets, by content type. Runs in the worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any
from urllib.parse import parse_qsl

import orjson

from nbserve.errors import BadRequest
from nbserve.worker.multipart import decode_multipart, gather

Decoder = Callable[[memoryview], Any]
MAX_FORM_FIELDS = 1000


def decode_row(meta: bytes, body: memoryview) -> Any:
    """The body as an object: JSON, str for text, dict for forms, else bytes. Raises BadRequest for a body that lies."""
    try:
        return decoder_of(content_type_of(meta))(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


def content_type_of(meta: bytes) -> bytes:
    return meta.split(b"\0", 2)[1]


@lru_cache(maxsize=256)
def decoder_of(content_type: bytes) -> Decoder:
    """What decodes bodies of a content type; without a content type a body stays bytes."""
    media_type, _, _ = content_type.partition(b";")
    media_type = media_type.strip().lower()
    if media_type == b"application/json" or media_type.endswith(b"+json"):
        return orjson.loads
    if media_type == b"multipart/form-data":
        return partial(decode_multipart, content_type)
    if media_type == b"application/x-www-form-urlencoded":
        return decode_form
    if media_type.startswith(b"text/"):
        return partial(decode_text, charset_of(content_type))
    return bytes


def decode_text(charset: str, body: memoryview) -> str:
    try:
        return str(body, charset)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not {charset} text: {error.reason} at byte {error.start}") from None
    except LookupError:
        raise BadRequest(f"the body's charset {charset!r} is unknown") from None


def decode_form(body: memoryview) -> Any:
    """A form as a dict; or the JSON that `curl -d` sends under this content type unless it is told otherwise."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if bytes(body[:64]).lstrip().startswith(b"{"):
            raise BadRequest(f"the body is neither a form nor JSON: {error}") from None
    try:
        fields = parse_qsl(str(body, "utf-8"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError as error:
        raise BadRequest(f"the body is no form: {error}") from None
    return gather(fields)


def charset_of(content_type: bytes) -> str:
    for parameter in content_type.split(b";")[1:]:
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"charset":
            return value.strip().strip(b"\"'").decode("latin-1")
    return "utf-8"
