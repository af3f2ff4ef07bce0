"""The command line as a whole: which module has which verb, and what is imported for one."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys

import pytest

import nbserve
from nbserve.cli import VERBS, main


@pytest.mark.parametrize("module", sorted(set(VERBS.values())))
def test_a_module_has_the_verbs_that_it_is_listed_for(module: str) -> None:
    verbs = argparse.ArgumentParser().add_subparsers()
    importlib.import_module(f"nbserve.cli.{module}").add(verbs)
    assert set(verbs.choices) == {verb for verb, place in VERBS.items() if place == module}


def test_help_lists_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(f"\n    {verb} " in said for verb in VERBS)


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), ([], 2), (["fly"], 2), (["serve", "--fly"], 2)])
def test_what_is_no_verb_is_refused(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code
    said = capsys.readouterr()
    assert said.out == (f"{nbserve.__version__}\n" if code == 0 else "")


@pytest.mark.process
def test_health_imports_little_and_says_that_nothing_is_there() -> None:
    script = (
        "import json, sys; from nbserve.cli import main; code = main(['health', '--url', 'http://127.0.0.1:9']);"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    code, modules = json.loads(done.stdout)
    assert code == 1
    assert "no healthy server at http://127.0.0.1:9" in done.stderr
    heavy = {"torch", "numpy", "tornado", "uvloop", "orjson", "asyncio", "importlib.metadata", "prometheus_client"}
    assert not heavy & set(modules)
