"""The same magics in plain IPython, and `nbserve.serve` in a Python program without any IPython."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process]

SESSION = """\
get_ipython().run_line_magic('load_ext', 'nbserve')
get_ipython().run_cell_magic('serve', 'echo --workers 2', 'def echo(requests):\\n    return requests\\n')
get_ipython().run_line_magic('serve', 'status')
get_ipython().run_line_magic('serve', 'panel echo')
answer = get_ipython().run_line_magic('serve', 'predict echo [1, 2]')
print("answer", answer)
"""

PROGRAM = """\
import nbserve

factor = 3

class Triple(nbserve.Handler):
    def preprocess(self, requests):
        return requests

    def inference(self, rows):
        return [factor * row for row in rows]

if __name__ == "__main__":
    import sys
    endpoint = nbserve.serve(Triple, on_progress=lambda text: print("...", text))
    print(endpoint.name, endpoint.predict(14))
    print("IPython" in sys.modules)
    if "panel" in sys.argv:
        endpoint.panel()
"""


def run(*words: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_plain_ipython_prints_lines(tmp_path: Path) -> None:
    (tmp_path / "session.ipy").write_text(SESSION)
    said = run("-m", "IPython", "--no-banner", "--colors=NoColor", "session.ipy", folder=tmp_path)
    assert "echo: capturing the handler" in said
    assert "2 ready (cpu)" in said
    assert "<div" not in said
    assert said.count("curl ") == 2
    assert "now      0 answers/s" in said
    assert "picture" not in said
    assert "answer [1, 2]" in said


def test_a_cell_is_called_by_the_number_at_its_prompt(tmp_path: Path) -> None:
    program = """
from IPython.core.interactiveshell import InteractiveShell
from nbserve.notebook import cell
shell = InteractiveShell()
shell.history_manager.enabled = False
shell.user_ns.update(say=lambda: print(cell.label(shell)))
for _ in range(2):
    result = shell.run_cell("say()", store_history=True)
    assert result.execution_count == shell.execution_count - 1
"""
    (tmp_path / "program.py").write_text(program)
    assert run("program.py", folder=tmp_path).splitlines() == ["notebook, cell 1", "notebook, cell 2"]


def test_a_program_needs_no_ipython(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    said = run("program.py", folder=tmp_path)
    assert "triple 42" in said
    assert said.splitlines()[-1] == "False"


def test_a_program_prints_what_a_panel_says(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    said = run("program.py", "panel", folder=tmp_path)
    assert "1 ready (cpu)" in said
    assert "answers/s" in said
    assert "<div" not in said
