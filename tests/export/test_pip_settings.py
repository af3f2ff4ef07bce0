"""Where pip looks for packages here, told to the pip in a builder."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

import pytest

from nbserve.export.pipsettings import offers_torch, parse

# As pip 26 prints them, sorted.
LISTING = r"""
:env:.cert='/etc/ssl/certs/company.crt'
:env:.default-timeout='180'
:env:.disable-pip-version-check='1'
:env:.find-links='/opt/wheels'
freeze.timeout='10'
global.cert='/etc/ssl/certs/ca-certificates.crt'
global.constraint='/etc/pip/constraints.txt'
global.extra-index-url='file:///opt/pypi/simple file:///opt/more%20packages\nhttps://me:s%40crt@pypi.example.com/simple'
global.index-url='https://pypi.example.com/simple'
global.user='true'
install.find-links='/srv/wheels'
install.prefer-binary='true'
"""


def settings_of(text: str) -> dict[str, dict[str, list[str]]]:
    parser = RawConfigParser()
    parser.read_string(text)
    return {name: {key: value.split() for key, value in parser[name].items()} for name in parser.sections()}


def test_only_what_says_where_packages_are_goes_along_and_variables_win() -> None:
    assert settings_of(parse(LISTING).text) == {
        "global": {
            "cert": ["/etc/ssl/certs/ca-certificates.crt"],
            "extra-index-url": [
                "file:///opt/pypi/simple",
                "file:///opt/more%20packages",
                "https://me:s%40crt@pypi.example.com/simple",
            ],
            "index-url": ["https://pypi.example.com/simple"],
        },
        "install": {"cert": ["/etc/ssl/certs/company.crt"], "default-timeout": ["180"], "find-links": ["/opt/wheels"]},
    }


def test_what_they_name_of_this_machine_is_known_an_index_with_its_files() -> None:
    names = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/company.crt", "/opt/more packages", "/opt/pypi")
    assert parse(LISTING).paths == tuple(map(Path, (*names, "/opt/wheels")))


def test_a_builder_that_sees_nothing_of_this_machine_is_told_of_the_certificate_alone() -> None:
    assert parse(LISTING).certificate == Path("/etc/ssl/certs/company.crt")
    assert settings_of(parse(LISTING).without_paths().text) == {
        "global": {
            "extra-index-url": ["https://me:s%40crt@pypi.example.com/simple"],
            "index-url": ["https://pypi.example.com/simple"],
        },
        "install": {"cert": ["/run/secrets/pipcert"], "default-timeout": ["180"]},
    }


def test_a_relative_path_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse("global.find-links='wheels https://wheels.example.com/'\n:env:.cert='company root.pem'\n")
    assert settings_of(found.text)["global"]["find-links"] == [f"{tmp_path}/wheels", "https://wheels.example.com/"]
    assert f"cert = {tmp_path}/company root.pem" in found.text
    assert found.paths == (tmp_path / "company root.pem", tmp_path / "wheels")


@pytest.mark.parametrize("listing", ["", "global.timeout='60'\nglobal.cert='/c.pem'", "ERROR: no such command\n"])
def test_settings_without_an_index_of_their_own(listing: str) -> None:
    assert not parse(listing).names_index


def test_settings_with_an_index_of_their_own() -> None:
    assert parse("global.index-url='https://pypi.example.com/simple'").names_index
    assert parse(":env:.find-links='/opt/wheels'").names_index


TORCH = """torch (2.13.0+cpu)
Available versions: 2.13.0+cpu, 2.13.0, 2.12.1+cu130, 2.12.1
  INSTALLED: 2.11.0+cpu
  LATEST:    2.14.0+cpu
"""


@pytest.mark.parametrize(
    ("version", "is_gpu", "has"),
    [
        ("2.13.0", False, True),
        ("2.13.0", True, False),
        ("2.12.1", True, True),
        ("2.12.1", False, False),
        ("2.11.0", False, False),
        ("3.0", False, False),
        ("13.0", False, False),
    ],
)
def test_an_index_has_the_build_of_torch_that_is_wanted_or_not(version: str, is_gpu: bool, has: bool) -> None:
    assert offers_torch(TORCH, version, is_gpu) is has
