"""The export that a server runs for its panel: one at a time, told by the stream, ended without anything left."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbserve.deployment import Server
from nbserve.errors import BadRequest, Conflict, NotFound
from nbserve.server.export import ExportOrder
from nbserve.server.export_api import folder_of, order_of
from nbserve.verbs import Endpoint

DOUBLE = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [2 * x for x in requests]
"""


def test_a_wish_becomes_an_order(tmp_path: Path) -> None:
    assert order_of({}, "digits", tmp_path) == ExportOrder(tmp_path / "digits-export")
    wish = {"directory": " sub/../out ", "build": " digits:1 ", "gpu": True}
    assert order_of(wish, "digits", tmp_path) == ExportOrder(tmp_path / "out", "digits:1", True)
    assert order_of({"directory": "/a/b", "build": "", "gpu": None}, "x", tmp_path) == ExportOrder(Path("/a/b"))
    assert order_of({"directory": "~/b"}, "x", tmp_path).directory == Path.home().resolve() / "b"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"folder": "x"}, "'folder' is unknown here; there are: directory, build, gpu"),
        ({"directory": 3}, "directory is 3; it takes a text"),
        ({"gpu": "yes"}, "gpu is 'yes'; it takes true, false or null"),
        ({"directory": "a\0b"}, "which is no path here"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(wish: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=words):
        order_of(wish, "digits", tmp_path)


def test_an_order_is_what_the_command_line_takes() -> None:
    assert ExportOrder(Path("/x")).words() == []
    assert ExportOrder(Path("/x"), "-t", True).words() == ["--build=-t", "--gpu"]
    assert ExportOrder(Path("/x"), gpu=False).words() == ["--no-gpu"]


def test_folders_are_beside_the_notebook_where_one_is_known(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path / "digits.ipynb")) == tmp_path
    for unknown in (None, "", "digits.ipynb", str(tmp_path / "gone" / "digits.ipynb")):
        assert folder_of(unknown) == Path.cwd()


def exporters(server: Server) -> list[psutil.Process]:
    """The processes of exports of this server."""
    children = psutil.Process(server.run_file.pid).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and "export" in child.cmdline()]


def export_of(endpoint: Endpoint, holds: Callable[[Any], bool]) -> Any:
    """What the stream tells of the export as soon as it holds."""
    for line in endpoint.stream(0.1, limit_s=120):
        if line["event"] == "stats" and line["export"] is not None and holds(line["export"]):
            return line["export"]
    raise AssertionError("the stream ended before it came true")


def order(endpoint: Endpoint, directory: Path, **wish: Any) -> Any:
    return endpoint.server.call("POST", f"{endpoint.path}/export", {"directory": str(directory), **wish})


@pytest.mark.process
def test_an_endpoint_is_exported_with_its_settings_of_now(serve_cell: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = serve_cell(DOUBLE)
    endpoint.predict(4)
    endpoint.configure(max_batch_size=5)
    target = tmp_path / "out"
    with pytest.raises(NotFound, match="no finished export"):
        endpoint.server.call("GET", f"{endpoint.path}/export")
    status = order(endpoint, target)
    assert (status["directory"], status["is_running"], status["result"]) == (str(target), True, None)
    assert export_of(endpoint, lambda export: export["lines"])["is_running"]
    done = export_of(endpoint, lambda export: not export["is_running"])
    assert done["error"] is None
    assert (done["result"]["path"], done["result"]["proven"]) == (str(target), 1)
    assert "max_batch_size = 5" in (target / "bundle" / "nbserve.toml").read_text()
    assert (target / "Dockerfile").is_file()
    packed = endpoint.relay("GET", "/export")
    with tarfile.open(fileobj=io.BytesIO(packed.body)) as tar:
        names = {Path(name) for name in tar.getnames()}
    assert names == {Path("out") / path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    assert exporters(endpoint.server) == []


@pytest.mark.process
def test_one_at_a_time_which_can_be_ended_and_ends_with_its_endpoint(
    server: Server, make_bundle: Callable[..., Any], tmp_path: Path
) -> None:
    endpoint = server.deploy(make_bundle(DOUBLE, "ends").path)
    with pytest.raises(NotFound):
        endpoint.server.call("DELETE", f"{endpoint.path}/export")
    order(endpoint, tmp_path / "out")
    with pytest.raises(Conflict, match=r"is being exported to .*/out: wait for that"):
        order(endpoint, tmp_path / "other")
    assert export_of(endpoint, lambda export: export["lines"])
    ended = endpoint.server.call("DELETE", f"{endpoint.path}/export")
    assert (ended["is_running"], ended["result"]) == (False, None)
    assert ended["error"].startswith("ended before it was done")
    assert list(tmp_path.glob("*out*")) == []
    order(endpoint, tmp_path / "other")
    endpoint.stop()
    assert exporters(server) == []
    assert list(tmp_path.glob("*other*")) == []


@pytest.mark.process
def test_it_ends_with_its_server(make_bundle: Callable[..., Any], tmp_path: Path) -> None:
    server = Server.start().ready()
    endpoint = server.deploy(make_bundle(DOUBLE, "h").path)
    order(endpoint, tmp_path / "out")
    [process] = exporters(server)
    assert export_of(endpoint, lambda export: export["lines"])
    psutil.Process(server.run_file.pid).kill()
    process.wait(60)
    assert list(tmp_path.glob("*out*")) == []
    assert not server.is_alive()
    # Looking for servers takes away what dead ones left.
    assert server.server_id not in {found.server_id for found in Server.find()}


@pytest.mark.process
def test_what_cannot_be_exported_says_why(serve_cell: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = serve_cell(DOUBLE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    order(endpoint, tmp_path / "mine")
    failed = export_of(endpoint, lambda export: not export["is_running"])
    assert "mine exists and was not written by an export: export to another folder" in failed["error"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
