"""A whole notebook run from the terminal: what it served is found, what fails is told, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from nbserve.bundle.bundle import Bundle
from nbserve.errors import ExportError
from nbserve.notebook import headless
from nbserve.notebook.headless import Step

SERVES = """\
%%serve twice --workers 1
import nbserve

class H(nbserve.Handler):
    def handle(self, requests, context):
        return [FACTOR * x for x in requests]
"""


def write_notebook(path: Path, sources: Sequence[str | tuple[str, str]], kernel: str = "python3") -> Path:
    """A notebook of code cells; a pair is a source and its tag."""
    pairs = [source if isinstance(source, tuple) else (source, "") for source in sources]
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag] if tag else []}) for source, tag in pairs]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title"), *cells])
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(notebook, path)
    return path


def step(source: str, traceback: list[str] | None = None) -> Step:
    cell = nbformat.v4.new_code_cell(source)
    if traceback is not None:
        cell.outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=traceback)]
    return Step(3, 12, cell)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch, jupyter_dirs: Path, tmp_path: Path) -> Callable[[], list[str]]:
    """The processes of notebooks that this test runs, which may look for run files in places of their own."""
    monkeypatch.setenv("NBSERVE_TEST", str(tmp_path))
    return lambda: [
        " ".join(process.cmdline())
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _environ(process).get("NBSERVE_TEST") == str(tmp_path)
    ]


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except psutil.Error:
        return {}


def test_a_step_is_a_line() -> None:
    assert str(step("\n%%serve digits\nclass H: ...")) == "[ 3/12] %%serve digits"


def test_a_failure_names_the_line_and_shows_the_end_of_what_was_said() -> None:
    said = (
        "\x1b[31m---\x1b[39m\nTypeError  Traceback\nCell In[3], line 2\n      1 a = 1\n--> 2 a + 'x'\n\nTypeError: no"
    )
    text = headless.failure(step("a = 1\na + 'x'", said.splitlines()), "nb.ipynb")
    assert text.splitlines() == [
        "cell 3 of nb.ipynb failed in line 2: a + 'x'",
        "  TypeError  Traceback",
        "  Cell In[3], line 2",
        "        1 a = 1",
        "  --> 2 a + 'x'",
        "  TypeError: no",
    ]


def test_a_failure_that_says_much_is_cut_at_its_beginning() -> None:
    text = headless.failure(step("%serve nonsense", [f"line {n}" for n in range(100)]), "nb.ipynb")
    lines = text.splitlines()
    assert lines[:3] == ["cell 3 of nb.ipynb failed: %serve nonsense", "  ...", f"  line {100 - headless.MOST_LINES}"]
    assert lines[-1] == "  line 99"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read {path}: No such file"),
        ("{", "{path} is no notebook: "),
        ('{"a": 1}', "{path} is no notebook"),
    ],
)
def test_what_is_no_notebook_is_said(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "nb.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExportError) as caught:
        headless.read(path)
    assert str(caught.value).startswith(words.format(path=path))


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nbclient", None)
    with pytest.raises(ExportError, match=r"pip install 'nbserve-torch\[jupyter\]'"):
        headless.read(tmp_path / "nb.ipynb")


@pytest.mark.notebook
@pytest.mark.process
def test_the_newest_that_served_is_found_and_nothing_else_is_touched(
    tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    path = write_notebook(
        tmp_path / "nb.ipynb",
        [
            "%load_ext nbserve\nFACTOR = 2",
            SERVES,
            "FACTOR = 3",
            "",
            SERVES,
            "%serve predict twice 5",
            "%serve config twice max_batch_size=7",
            ("raise SystemExit('never')", "skip-execution"),
            ("%%serve twice\nclass H:\n    def initialize(self, context): 1 / 0\n    handle = 1", "raises-exception"),
            "%%serve other --detach\ndef other(requests): return requests",
            "%serve stop twice\nimport os; print(os.getcwd())",
        ],
    )
    told: list[str] = []
    before = dict(os.environ)
    with headless.served(path, told.append) as bundles:
        assert left() == [], "it has ended before anything is exported"
        assert list(bundles) == ["other", "twice"]
        twice = Bundle.read(bundles["twice"])
        assert (twice.settings["max_batch_size"], [pair.answer_body for pair in twice.golden()]) == (7, [b"15"])
        assert twice.provenance["cell"] == "nb.ipynb, cell 4"
        place = bundles["twice"]
    assert not place.exists()
    assert dict(os.environ) == before
    assert told[1] == "[2/9] %%serve twice --workers 1"
    assert len(told) == 9
    assert nbformat.read(path, as_version=4).cells[1].outputs == [], "the notebook itself stays as it is"


@pytest.mark.notebook
@pytest.mark.process
def test_a_cell_that_fails_ends_it_all(tmp_path: Path, left: Callable[[], list[str]]) -> None:
    serves = SERVES.replace("--workers 1", "--detach")
    path = write_notebook(tmp_path / "nb.ipynb", ["%load_ext nbserve\nFACTOR = 2", serves, "x = 1\nx / 0", "never"])
    with pytest.raises(ExportError) as caught, headless.served(path, lambda text: None):
        pass
    text = str(caught.value)
    assert text.startswith("cell 3 of nb.ipynb failed in line 2: x / 0\n")
    assert text.endswith("ZeroDivisionError: division by zero\nnothing was exported")
    assert left() == []


@pytest.mark.notebook
@pytest.mark.process
def test_who_serves_nothing_or_wants_another_kernel_is_told(tmp_path: Path, left: Callable[[], list[str]]) -> None:
    path = write_notebook(tmp_path / "nb.ipynb", ["x = 1"])
    with pytest.raises(ExportError, match=r"nb.ipynb serves nothing"), headless.served(path, lambda text: None):
        pass
    path = write_notebook(tmp_path / "nb.ipynb", ["x = 1"], kernel="r-4.1")
    with (
        pytest.raises(ExportError, match=r"kernel 'r-4.1', which is not here"),
        headless.served(path, lambda text: None),
    ):
        pass
    assert left() == []


@pytest.mark.notebook
@pytest.mark.process
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, left: Callable[[], list[str]], wait_until: Callable[..., Any]
) -> None:
    marker = tmp_path / "waits"
    waits = f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(600)"
    path = write_notebook(tmp_path / "nb.ipynb", ["%load_ext nbserve\nFACTOR = 2", SERVES, waits])
    command = [sys.executable, "-m", "nbserve", "export", str(path), str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(marker.exists)
        process.send_signal(signal.SIGTERM)
        out, told = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), told
    assert told.splitlines()[-1].startswith("[3/3] import pathlib, time")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nb.ipynb", "waits"]
    assert left() == []
