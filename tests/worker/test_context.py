"""The requests of a batch as a handler sees them, and TorchServe's properties."""

from __future__ import annotations

import pytest

from nbserve.wire import Row
from nbserve.worker.context import RequestViews, properties_of
from nbserve.worker.spec import WorkerSpec


def views(*metas: bytes) -> RequestViews:
    return RequestViews([Row(index + 10, meta, memoryview(b"")) for index, meta in enumerate(metas)], "ab12")


def test_a_request_has_id_query_type_and_headers() -> None:
    [request] = views(b"a=1&b=&a=2&c=%C3%A9\0text/plain\0X-One: 1\nx-two:a:b\nx-one:2")
    assert request.id == "ab12-a"
    assert request.query == {"a": "2", "b": "", "c": "é"}
    assert request.content_type == "text/plain"
    assert request.headers == {"content-type": "text/plain", "x-one": "1, 2", "x-two": "a:b"}


def test_a_request_without_anything_is_empty() -> None:
    [request] = views(b"\0\0")
    assert (request.headers, request.query, request.content_type) == ({}, {}, "")


def test_views_are_a_sequence() -> None:
    three = views(b"\0a\0", b"\0b\0", b"\0c\0")
    assert len(three) == 3
    assert [request.content_type for request in three] == ["a", "b", "c"]
    assert [request.content_type for request in three[1:]] == ["b", "c"]
    assert three[-1].id == "ab12-c"
    with pytest.raises(IndexError):
        three[3]


def test_views_show_ids_and_types() -> None:
    assert repr(views(b"\0text/plain\0", b"\0\0")) == "<requests: ab12-a text/plain, ab12-b without a type>"
    assert repr(views(*[b"\0a/b\0"] * 10)).endswith("ab12-11 a/b, and 2 more>")
    assert repr(views()) == "<requests: none>"


@pytest.mark.parametrize(("device", "gpu"), [("cpu", None), ("cuda", 0), ("cuda:3", 3), ("mps", None)])
def test_properties_have_torchserves_names(device: str, gpu: int | None) -> None:
    properties = properties_of(WorkerSpec("/b", "digits", "1", device=device, max_batch_size=8))
    assert (properties["model_dir"], properties["gpu_id"], properties["batch_size"]) == ("/b", gpu, 8)


def test_a_spec_ignores_what_it_does_not_know() -> None:
    spec = WorkerSpec("/b", "digits", "1", threads=3)
    assert WorkerSpec.from_json(spec.as_json() | {"of_tomorrow": 1}) == spec
