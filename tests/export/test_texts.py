"""Templates are filled so that YAML reads back what went in."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nbserve.export import texts
from nbserve.export.texts import filled, yaml_text


@given(st.text())
def test_any_text_comes_back_from_yaml(text: str) -> None:
    assert yaml.safe_load(f"key: {yaml_text(text)}\n") == {"key": text}


@pytest.mark.parametrize(
    "text", ["on", "No", "null", "1e3", "0x1f", "3f9c2a", "~", "", "a: b", "a #b", "{{a}}", "🜁", "\x85"]
)
def test_what_yaml_reads_otherwise_is_quoted(text: str) -> None:
    assert yaml.safe_load(f"[{yaml_text(text)}]") == [text]


def test_what_yaml_reads_as_it_is_stays_plain() -> None:
    assert yaml_text("digits-v2") == "digits-v2"


def test_lines_stand_under_conditions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a-template").write_text("a: $a\n?b   b: yes\n?!b   b: no\nc: $$c ?b\n")
    monkeypatch.setattr(texts, "files", lambda package: tmp_path)
    assert filled("a-template", a=1, b=True) == "a: 1\n  b: yes\nc: $c ?b\n"
    assert filled("a-template", a=1, b=0) == "a: 1\n  b: no\nc: $c ?b\n"
    with pytest.raises(KeyError):
        filled("a-template", b=True)
