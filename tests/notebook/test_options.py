"""Options of the magics: every setting has one, mistakes are named, and nothing ends the kernel."""

from __future__ import annotations

import dataclasses

import pytest
from IPython.core.error import UsageError

from nbserve.config import EndpointConfig
from nbserve.notebook import options
from nbserve.options import as_option, settings_of


def settings(line: str) -> dict[str, object]:
    return settings_of(options.cell_parser().parse(options.split(line)), EndpointConfig)


def test_only_given_settings_are_set() -> None:
    assert settings("digits") == {}
    assert settings("digits --workers 2 --max-batch-size=16") == {"workers": 2, "max_batch_size": 16}


def test_every_setting_has_an_option_that_yields_its_own_type() -> None:
    for field in dataclasses.fields(EndpointConfig):
        value = settings(f"digits {as_option(f'{field.name}={field.default}')}")[field.name]
        assert value == field.default
        assert type(value) is type(field.default)
    assert settings("digits --no-isolate-errors") == {"isolate_errors": False}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("digits --max-batchsize 4", "no option --max-batchsize; did you mean --max-batch-size?"),
        ("digits --worker 4", "did you mean --workers?"),
        ("digits --prot=8080", "did you mean --port?"),
        ("digits --workers two", "--workers: takes a whole number, not 'two'"),
        ("digits --max-batch-delay-ms soon", "--max-batch-delay-ms: takes a number, not 'soon'"),
        ("digits --port", "--port"),
        ("digits more", "'more' is one word too many"),
        ("", "NAME"),
        ("a/b", "cannot stand in a URL"),
        ("'digits", "quotes"),
    ],
)
def test_a_mistake_is_named(line: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        settings(line)
    assert said in str(raised.value)


def test_help_is_asked_for_anywhere_and_lists_all_settings() -> None:
    assert options.wants_help(["digits", "--help"])
    assert not options.wants_help(["digits"])
    text = options.cell_parser().format_help()
    assert "--max-batch-delay-ms" in text
    assert "--detach" in text


def test_settings_may_be_written_as_assignments() -> None:
    tokens = [as_option(word) for word in ("digits", "max_batch_size=8", "isolate_errors=false", "--workers", "2")]
    assert tokens == ["digits", "--max-batch-size=8", "--no-isolate-errors", "--workers", "2"]
