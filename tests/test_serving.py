"""From a handler to an endpoint: what needs no server."""

from __future__ import annotations

import functools

import pytest

from nbserve import serving


class DigitNet:
    """A stand-in for a model: only its name counts here."""


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (DigitNet, "digit-net"),
        (DigitNet(), "digit-net"),
        (type("HTTPEcho2", (), {}), "httpecho2"),
        (functools.wraps(len)(lambda requests: requests), "len"),
        (lambda requests: requests, "lambda"),
    ],
)
def test_an_endpoint_without_a_name_is_called_after_its_handler(handler: object, name: str) -> None:
    assert serving.default_name(handler) == name


def test_a_process_has_one_home_and_a_forked_child_its_own() -> None:
    assert serving.home() is serving.home()
    assert serving._home_of(1) is not serving.home()
