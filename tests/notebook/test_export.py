"""`%serve export`: its line, its progress and its card, and the same endpoint exported from a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from nbserve.config import EndpointConfig
from nbserve.export.options import ExportOptions
from nbserve.export.plan import Plan
from nbserve.notebook import export
from tests.notebook.conftest import Kernel, Outcome

HANDLER = """\
%%serve double --workers 1
import nbserve

class Double(nbserve.Handler):
    def handle(self, requests, context):
        return [2 * x for x in requests]
"""


def exported(path: Path, **changes: Any) -> Any:
    from nbserve.export.session import Exported

    plan = Plan(
        name="dig<its>",
        slug="digits",
        version="3f9c2a1b",
        image="digits:1",
        base="python:3.11",
        python="3.11",
        torch="2.13.0",
        index_url="",
        is_gpu=False,
        port=8080,
        settings=EndpointConfig().as_dict(),
        tuned={},
        model_bytes=10,
        golden_count=2,
    )
    return Exported(**{"path": path, "plan": plan, "files": 31, "size_bytes": 1_200_000, "proven": 2, **changes})


def test_a_line_becomes_options() -> None:
    parser = export.parser()
    name, directory, asked = export.asked_of(
        parser,
        "digits 'my out' --build digits:1 --no-gpu --port 9000 --index-url https://x/cpu --base b --golden g.jsonl",
    )
    assert (name, directory) == ("digits", Path("my out"))
    assert asked == ExportOptions("digits:1", False, 9000, "https://x/cpu", "b", Path("g.jsonl"))
    assert export.asked_of(parser, "digits ~/out") == ("digits", Path.home() / "out", ExportOptions())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("digits", "required: DIR"),
        ("digits out --bild x", "did you mean --build?"),
        ("digits out --port x", "takes a whole number"),
        ("digits out more", "one word too many"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        export.asked_of(export.parser(), line)


def test_the_card_says_what_there_is_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = export.card(exported(tmp_path / "out", image="digits:1", image_bytes=2 * 10**9, notes=("a note",)))
    lines = shown.text.splitlines()
    assert lines[0] == "dig<its>: version 3f9c2a1b, exported"
    assert "  folder   out" in lines
    assert "  size     31 files, 1.2 MB" in lines
    assert "  image    digits:1, 2.0 GB" in lines
    assert "  note     a note" in lines
    assert any(line.startswith("  proof    ") and "2 recorded requests" in line for line in lines)
    assert any(line.startswith("  next     ") and "digits:1" in line for line in lines)
    assert "dig&lt;its&gt;" in shown.html
    assert "dig<its>" not in shown.html
    assert str(tmp_path) not in shown.text


def test_a_folder_elsewhere_is_called_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.near(tmp_path / "a" / "b") == "a/b"
    assert export.near(tmp_path.parent / "b") == str(tmp_path.parent / "b")
    assert export.near(tmp_path / "..c") == "..c"


def test_a_shell_shows_the_card_until_the_magics_are_taken_away(shell: InteractiveShell, tmp_path: Path) -> None:
    export.register(shell)
    shown, _ = shell.display_formatter.format(exported(tmp_path))
    assert shown["text/html"].startswith("<div")
    assert shown["text/plain"].startswith("dig<its>: version 3f9c2a1b, exported")
    export.unregister(shell)
    shown, _ = shell.display_formatter.format(exported(tmp_path))
    assert "text/html" not in shown


@pytest.mark.notebook
@pytest.mark.process
def test_an_endpoint_is_exported_from_its_notebook(kernel: Kernel, tmp_path: Path) -> None:
    kernel.ok(HANDLER)
    kernel.ok("%serve predict double 4")
    kernel.ok("%serve config double max_batch_size=5")
    told: list[str] = []
    outcome = kernel.run(
        "e = %serve export double out\ne",
        lambda so_far: told.extend(display["data"]["text/plain"] for display in so_far.displays),
    )
    assert outcome.status == "ok", outcome.text
    assert any("clean process" in text for text in told), "it says what it does"
    [line] = outcome.displays
    assert line["data"]["text/plain"].startswith("double: exported ")
    assert outcome.value is not None
    assert "  folder   out\n" in outcome.value
    assert kernel.ok("print(e.proven, e.path.name, (e.path / 'Dockerfile').exists())").printed == "1 out True\n"
    assert "max_batch_size = 5" in kernel.ok("print((e.path / 'bundle' / 'nbserve.toml').read_text())").printed
    # The same from a program, in the place of the earlier one.
    again = kernel.ok("import nbserve\nprint(nbserve.endpoint('double').export('out', port=9000).plan.port)")
    assert again.printed == "9000\n"
    mistake = kernel.run(
        "import pathlib; pathlib.Path('mine').mkdir(); pathlib.Path('mine/x').touch()\n%serve export double mine"
    )
    assert mistake.error.splitlines()[-1].startswith("ExportError: ")
    assert len(mistake.error.splitlines()) == 1, "no frame of ours is shown"
    assert mistake.displays[-1]["data"]["text/plain"] == "double: not exported"
    # Whoever interrupts it has nothing half-written.
    sent: list[bool] = []

    def interrupt(so_far: Outcome) -> None:
        if not sent and any("clean process" in display["data"]["text/plain"] for display in so_far.displays):
            sent.append(True)
            kernel.interrupt()

    interrupted = kernel.run("%serve export double half", interrupt)
    assert interrupted.error_name == "KeyboardInterrupt"
    assert interrupted.displays[-1]["data"]["text/plain"] == "double: interrupted: nothing was exported"
    assert kernel.ok("print(sorted(path.name for path in pathlib.Path().glob('*half*')))").printed == "[]\n"
    kernel.ok("%serve stop double")
