"""Bodies become objects by their content type; a body that lies is the client's mistake."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbserve.errors import BadRequest
from nbserve.handler import UploadedFile
from nbserve.worker.decode import decode_row, decoder_of

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=cut"


def decode(content_type: str, body: bytes) -> Any:
    return decode_row(b"query=1\0" + content_type.encode() + b"\0accept:*/*", memoryview(body))


def multipart(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(b"--cut\r\n%s\r\n\r\n%s\r\n" % (head.encode(), body) for head, body in parts) + b"--cut--\r\n"


@pytest.mark.parametrize(
    ("content_type", "body", "wanted"),
    [
        ("application/json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("Application/JSON; charset=utf-8", b'"\xc3\xa9"', "é"),
        ("application/vnd.api+json", b"[]", []),
        ("text/plain", "é".encode(), "é"),
        ("text/csv; charset=latin-1", b"\xe9", "é"),
        ('text/plain; charset="utf-16-le"', "é".encode("utf-16-le"), "é"),
        ("image/jpeg", b"\xff\xd8", b"\xff\xd8"),
        ("application/octet-stream", b"[1]", b"[1]"),
        ("", b"[1]", b"[1]"),
        ("", b"", b""),
        (FORM, b"a=1&b=two+words&c=%C3%A9&d=", {"a": "1", "b": "two words", "c": "é", "d": ""}),
        (FORM, b"a=1&a=2", {"a": ["1", "2"]}),
        (FORM, b"", {}),
        (FORM, b'{"a": "x=1"}', {"a": "x=1"}),
        (FORM, b" [1, 2]", [1, 2]),
    ],
)
def test_a_body_is_what_its_content_type_says(content_type: str, body: bytes, wanted: Any) -> None:
    found = decode(content_type, body)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", b"{", "not JSON"),
        ("application/json", b"", "not JSON"),
        ("application/json", b"NaN", "not JSON"),
        ("application/json", b'"\xff"', "not JSON"),
        ("application/json", b"[" * 2000 + b"]" * 2000, "not JSON"),
        ("text/plain", b"\xff", "not utf-8 text"),
        ("text/plain; charset=klingon", b"a", "'klingon' is unknown"),
        ("text/plain; charset=hex", b"a", "'hex' is unknown"),
        (FORM, b'{"a": 1,}', "neither a form nor JSON"),
        (FORM, b"a=\xff", "no form"),
        (FORM, b"&".join(b"a=1" for _ in range(2000)), "no form"),
        ("multipart/form-data", b"", "no boundary"),
        (MULTIPART, b"no parts at all", "no multipart form"),
        (MULTIPART, b'--cut\r\nContent-Disposition: form-data; name="a"\r\n\r\nhalf', "ends before"),
        (MULTIPART, multipart(('Content-Disposition: form-data; name="a"', b"\xff")), "not UTF-8"),
    ],
)
def test_a_body_that_lies_is_a_bad_request(content_type: str, body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        decode(content_type, body)


def test_a_multipart_form_is_a_dict_of_texts_and_files() -> None:
    picture = bytes(range(256)) * 700
    body = multipart(
        ('Content-Disposition: form-data; name="data"; filename="a b.png"\r\nContent-Type: image/png', picture),
        ('content-disposition: form-data; name="label"', "é".encode()),
        ('Content-Disposition: form-data; name="raw"; filename="x"', b""),
    )
    assert decode(MULTIPART, body) == {
        "data": UploadedFile("a b.png", "image/png", picture),
        "label": "é",
        "raw": UploadedFile("x", "application/octet-stream", b""),
    }


def test_parts_of_one_name_are_a_list() -> None:
    head = 'Content-Disposition: form-data; name="files"; filename="{}"'
    found = decode(MULTIPART, multipart((head.format("a"), b"1"), (head.format("b"), b"2")))
    assert [file.data for file in found["files"]] == [b"1", b"2"]


def test_a_body_outlives_the_memory_it_was_read_from() -> None:
    memory = bytearray(b"picture")
    found = decode_row(b"\0image/png\0", memoryview(memory))
    memory[:] = b"another"
    assert found == b"picture"


def test_the_cache_of_decoders_is_bounded() -> None:
    for number in range(1000):
        decoder_of(f"multipart/form-data; boundary={number}".encode())
    assert decoder_of.cache_info().currsize <= 256


@given(st.binary(max_size=300), st.sampled_from([FORM, MULTIPART, "application/json", "text/plain", "image/png"]))
def test_noise_is_decoded_or_refused_but_never_a_crash(noise: bytes, content_type: str) -> None:
    with contextlib.suppress(BadRequest):
        decode(content_type, noise)


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
def test_json_survives(value: Any) -> None:
    assert decode("application/json", orjson.dumps(value)) == value
