"""What is to be tried out, in the words of `--ab`: findings and settings. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError, ProfileError
from nbserve.trace.model import Finding

Fix = str | int | Mapping[str, Any] | Finding

# What a setting that is named without a value is tried with, beside switches.
BARE = {"compile": "inductor", "dtype": "bfloat16", "policy": "adaptive"}
_TYPES: dict[str, type] = {field.name: type(field.default) for field in dataclasses.fields(EndpointConfig)}
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def needs_findings(fix: Fix) -> bool:
    """Whether it names a finding, of which there must have been a profile."""
    return isinstance(fix, int) or (isinstance(fix, str) and any(not _is_setting(word) for word in _words(fix)))


def settings_of(fix: Fix, findings: Sequence[Finding] = ()) -> dict[str, Any]:
    """The settings that it stands for; raises ProfileError or ConfigError."""
    if isinstance(fix, Finding):
        return _settings_of_finding(fix)
    if isinstance(fix, Mapping):
        found = dict(fix)
    elif isinstance(fix, int):
        found = _settings_of_finding(_by_number(fix, findings))
    else:
        found = {name: value for word in _words(fix) for name, value in _settings_of_word(word, findings).items()}
    if not found:
        raise ProfileError("say what to try: a finding's number or name, or a setting such as compile=inductor")
    EndpointConfig().changed(found)
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _is_setting(word: str) -> bool:
    return "=" in word or word.replace("-", "_") in _TYPES


def _settings_of_word(word: str, findings: Sequence[Finding]) -> dict[str, Any]:
    if _is_setting(word):
        name, is_given, value = word.removeprefix("--").partition("=")
        name = name.strip().replace("-", "_")
        return {name: _value(name, value.strip()) if is_given else _bare(name)}
    if word.isdecimal():
        return _settings_of_finding(_by_number(int(word), findings))
    for finding in findings:
        if finding.name == word:
            return _settings_of_finding(finding)
    raise ProfileError(f"there is no setting and no finding {word!r}; {_listed(findings)}")


def _by_number(number: int, findings: Sequence[Finding]) -> Finding:
    if not 1 <= number <= len(findings):
        raise ProfileError(f"there is no finding {number}; {_listed(findings)}")
    return findings[number - 1]


def _listed(findings: Sequence[Finding]) -> str:
    names = ", ".join(f"{number}. {finding.name}" for number, finding in enumerate(findings, 1))
    return f"the last profile found {names or 'nothing'}"


def _settings_of_finding(finding: Finding) -> dict[str, Any]:
    if finding.settings:
        return dict(finding.settings)
    raise ProfileError(f"no setting changes {finding.name}, so there is nothing to compare. What to do: {finding.fix}")


def _bare(name: str) -> Any:
    if _TYPES[name] is bool:
        return True
    if name in BARE:
        return BARE[name]
    raise ProfileError(f"say which {name} to try: {name}=VALUE")


def _value(name: str, text: str) -> Any:
    kind = _TYPES.get(name, str)
    if kind is str:
        return text
    try:
        return _TRUTHS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name} is {text!r}; it takes {wanted}") from None
