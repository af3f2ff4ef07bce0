"""`nbserve export`: what it takes for what, what it says in words and in JSON, and its exit codes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import nbserve.cli.export
from nbserve import cli
from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import ExportError, GoldenMismatch, NotFound
from nbserve.export import builders, session
from nbserve.export.options import ExportOptions
from nbserve.export.plan import Plan
from nbserve.export.session import Exported
from nbserve.notebook import headless

HANDLER = "class H(nbserve.Handler):\n    def handle(self, requests, context): return requests\n"

Written = list[tuple[Path, Path, ExportOptions]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What would have been exported: from where, to where, and how. A folder called `bad` does not work out."""
    found: Written = []

    def export(bundle: Path, directory: Path, options: ExportOptions, on_progress: Callable[[str], None]) -> Exported:
        on_progress("copying")
        if directory.name == "bad":
            raise GoldenMismatch("request 1 is answered in another way")
        found.append((bundle, directory, options))
        settings = EndpointConfig().as_dict()
        names = {
            "name": bundle.name,
            "slug": bundle.name,
            "version": "1",
            "image": "i:1",
            "base": "b",
            "python": "3.11",
        }
        more: dict[str, Any] = {"torch": "2", "index_url": "", "is_gpu": False, "port": 8080, "settings": settings}
        plan = Plan(**names, **more, tuned={}, model_bytes=1, golden_count=0)
        return Exported(directory, plan, files=3, size_bytes=10, proven=0, notes=("a note",))

    monkeypatch.setattr(session, "export", export)
    return found


@pytest.fixture
def bundle(make_bundle: Callable[..., Bundle]) -> Path:
    return make_bundle(HANDLER, "digits").path


@pytest.fixture
def two_served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A notebook that serves two endpoints, and how it was run."""
    ran: list[dict[str, Any]] = []

    @contextmanager
    def served(path: Path, tell: Callable[[str], None], **options: Any) -> Iterator[dict[str, Path]]:
        ran.append({"path": path, **options})
        yield {"digits": Path("b/digits"), "embed": Path("b/embed")}

    monkeypatch.setattr(headless, "served", served)
    return ran


def test_a_bundles_folder_is_exported(bundle: Path, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(bundle), "out", "--build", "d:1", "--gpu", "--port", "9000", "--golden", "g.jsonl"]
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["export", *words]) == 0
    assert written == [(bundle, Path("out"), ExportOptions("d:1", True, 9000, golden=Path("g.jsonl")))]
    said = capsys.readouterr()
    assert said.err == f"exporting the bundle in {bundle}\ncopying\n"
    assert said.out.startswith("exported ")
    assert "note: a note" in said.out
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_earlier_export_is_as_good_as_its_bundle(bundle: Path, written: Written, tmp_path: Path) -> None:
    bundle.rename(tmp_path / "bundle")
    assert cli.main(["export", str(tmp_path), "out"]) == 0
    assert [source for source, _, _ in written] == [tmp_path / "bundle"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "0"], "port is 0; it takes 1 to 65535"),
        (["--port", "65536"], "port is 65536; it takes 1 to 65535"),
        (["--port", "8082"], "port is 8082, which is that of the management or of the metrics"),
        (["--build", "Bad Tag"], "build is 'Bad Tag', and no image can have this name"),
        (["--build", "a:b:c"], "no image can have this name"),
        (["--build", ""], "no image can have this name"),
    ],
)
def test_what_makes_no_sense_is_said_before_a_notebook_runs(
    options: list[str], words: str, two_served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", "nb.ipynb", "out", *options]) == 1
    assert words in capsys.readouterr().err
    assert two_served == []


@pytest.mark.parametrize("tag", ["digits", "digits:1.0-rc_1", "ann/digits:1", "localhost:5000/a/b__c-d.e:x"])
def test_names_that_images_can_have(tag: str) -> None:
    assert ExportOptions(build=tag).build == tag


def test_what_would_stand_in_the_way_is_said_before_a_notebook_runs(
    tmp_path: Path,
    two_served: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["export", "nb.ipynb", str(tmp_path / "file")]) == 1
    assert "file exists and is no folder: export to another one" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NBSERVE_BUILDER", raising=False)
    assert cli.main(["export", "nb.ipynb", "out", "--build", "d:1"]) == 1
    assert "nothing here builds images" in capsys.readouterr().err
    assert two_served == []


def test_programs_get_it_in_lines_of_json(
    bundle: Path, written: Written, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.main(["export", str(bundle), "out", "--json"]) == 0
    *told, last = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert told[-1] == {"event": "progress", "text": "copying"}
    [exported] = last["exports"]
    assert (last["event"], exported["path"], exported["files"]) == ("exported", str(Path("out").absolute()), 3)
    assert exported["notes"] == ["a note"]
    assert any("docker" in line for line in exported["commands"])


def test_what_fails_says_so(bundle: Path, written: Written, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.main(["export", str(bundle), "bad"]) == 1
    assert capfdbinary.readouterr().err.endswith(b"nbserve: request 1 is answered in another way\n")
    assert cli.main(["export", str(bundle), "bad", "--json"]) == 1
    last = json.loads(capfdbinary.readouterr().out.splitlines()[-1])
    wanted = {
        "event": "failed",
        "code": 400,
        "type": "GoldenMismatch",
        "message": "request 1 is answered in another way",
    }
    assert last == wanted


def test_what_is_neither_folder_nor_endpoint_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(name: str, server_id: str | None) -> Any:
        raise NotFound(f"no running server has an endpoint {name!r}; there are: none")

    monkeypatch.setattr(nbserve.cli.export, "find_endpoint", find)
    assert cli.main(["export", str(tmp_path), "out"]) == 1
    assert f"the folder {tmp_path} is no bundle: it has no nbserve.toml, and no running" in capsys.readouterr().err
    assert cli.main(["export", "digts", "out"]) == 1
    assert "there is no bundle digts, and no running server has an endpoint 'digts'" in capsys.readouterr().err
    # Whoever names a server means what runs there, whatever lies here.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.ipynb").touch()
    assert cli.main(["export", "x.ipynb", "out", "--server", "1"]) == 1
    assert "no running server has an endpoint 'x.ipynb'" in capsys.readouterr().err


def test_each_of_several_gets_a_folder_of_its_own(written: Written, two_served: list[dict[str, Any]]) -> None:
    assert cli.main(["export", "nb.ipynb", "out", "--kernel", "k", "--allow-errors"]) == 0
    assert two_served == [{"path": Path("nb.ipynb"), "kernel": "k", "allow_errors": True}]
    assert [(source, target) for source, target, _ in written] == [
        (Path("b/digits"), Path("out/digits")),
        (Path("b/embed"), Path("out/embed")),
    ]


def test_one_of_several_can_be_chosen(
    written: Written,
    two_served: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(builders, "find_builder", lambda: None)
    assert cli.main(["export", "nb.ipynb", "out", "--endpoint", "embed", "--build", "e:1"]) == 0
    assert [(source, target) for source, target, _ in written] == [(Path("b/embed"), Path("out"))]
    assert cli.main(["export", "nb.ipynb", "out", "--endpoint", "x"]) == 1
    assert "nb.ipynb serves no endpoint 'x'; it serves digits, embed" in capsys.readouterr().err
    for option in ("--build", "--golden"):
        assert cli.main(["export", "nb.ipynb", "out", option, "y"]) == 1
        told = f"{option} is about one endpoint, and there are digits, embed: choose one with --endpoint"
        assert told in capsys.readouterr().err


def test_ctrl_c_has_an_exit_code_of_its_own(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any) -> Exported:
        signal.raise_signal(signal.SIGTERM)
        raise ExportError("it went on")

    monkeypatch.setattr(session, "export", export)
    assert cli.main(["export", str(bundle), "out"]) == 130
