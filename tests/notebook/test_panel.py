"""The panel in a real kernel: what a cell shows, and what travels by comm when the browser has no other way."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from tests.notebook.conftest import Kernel, older_ipykernel

pytestmark = [pytest.mark.notebook, pytest.mark.process]

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ECHO = "%%serve echo --max-batch-size 4\ndef echo(requests):\n    return requests\n"
THREADS = (
    "import threading; sorted(t.name for t in threading.enumerate() if t.name.startswith(('nbserve-p', 'nbserve-c')))"
)
FOLLOWED = "['nbserve-panel-echo', 'nbserve-picture-echo']"
# A person looks on: their front end can be asked for input.
A_PERSON: Sequence[Any] = ()


@pytest.fixture(scope="module", params=["the current ipykernel", "ipykernel 6"])
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """Since ipykernel 7 messages of widgets are taken in other threads; before, in the main one after the cell."""
    environ = {} if "current" in request.param else {"PYTHONPATH": str(older_ipykernel())}
    kernel = Kernel(tmp_path_factory.mktemp("kernel"), environ)
    is_older = kernel.ok("import ipykernel; ipykernel.version_info[0] == 6").value == "True"
    assert is_older == bool(environ)
    kernel.ok("%load_ext nbserve")
    yield kernel
    kernel.close()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test served is stopped, and so are the threads that followed it."""
    yield
    if "kernel" in request.fixturenames:
        kernel = request.getfixturevalue("kernel")
        kernel.run("%serve stop echo")
        assert threads_are(kernel, "[]")


def served(kernel: Any, cell: str = ECHO) -> Any:
    """The cell's outcome and the widget of its panel."""
    outcome = kernel.ok(cell, A_PERSON)
    return outcome, widget_of(kernel, outcome)


def widget_of(kernel: Any, outcome: Any) -> Any:
    [view] = [display["data"][WIDGET_VIEW] for display in outcome.displays if WIDGET_VIEW in display["data"]]
    return kernel.widgets[view["model_id"]]


def png(display: Any) -> bytes:
    return base64.b64decode(display["data"]["image/png"])


def pictures(outcome: Any) -> list[Any]:
    return [display for display in outcome.displays if "image/png" in display["data"]]


def threads_are(kernel: Any, expected: str, within_s: float = 10) -> bool:
    return bool(kernel.follow(lambda: kernel.ok(THREADS).value == expected, within_s))


def lines(widget: Any) -> list[dict[str, Any]]:
    return [message["line"] for message in widget.messages if message["op"] == "line"]


def replied(kernel: Any, widget: Any, number: int, method: str, path: str, body: Any = None) -> Any:
    """The reply to a call, and its buffers."""
    widget.send({"op": "call", "id": number, "method": method, "path": path, "body": body})

    def found() -> list[int]:
        return [i for i, message in enumerate(widget.messages) if message.get("id") == number]

    assert kernel.follow(found)
    [place] = found()
    return widget.messages[place], widget.buffers[place]


def test_a_cell_ends_in_a_panel(kernel: Any) -> None:
    outcome, widget = served(kernel)
    card, panel, picture = outcome.displays
    assert "/predictions/echo" in card["data"]["text/html"]
    assert "settings" not in card["data"]["text/html"]
    assert "1 ready (cpu)" in panel["data"]["text/plain"]
    assert "max_batch_size=4" in panel["data"]["text/plain"]
    assert "0 answers/s" in panel["data"]["text/plain"]
    assert widget.state["name"] == "echo"
    assert widget.state["line"] == "echo --max-batch-size 4"
    assert widget.state["snapshot"]["endpoint"]["settings"]["max_batch_size"] == 4
    assert widget.state["snapshot"]["endpoint"]["server_id"] == widget.state["server_id"]
    assert "render" in widget.state["_esm"]
    assert png(picture)[:4] == b"\x89PNG"
    assert "text/html" not in picture["data"]


def test_all_panels_of_an_endpoint_are_one(kernel: Any) -> None:
    _, widget = served(kernel)
    _, again = served(kernel, ECHO.replace("--max-batch-size 4", "--max-batch-size 8"))
    shown = widget_of(kernel, kernel.ok("%serve panel echo", A_PERSON))
    called = widget_of(kernel, kernel.ok("import nbserve\nnbserve.endpoint('echo').panel()", A_PERSON))
    assert widget is again is shown is called
    assert widget.state["line"] == "echo --max-batch-size 8"
    assert widget.state["snapshot"]["endpoint"]["settings"]["max_batch_size"] == 8


def test_lines_come_by_comm_while_somebody_follows(kernel: Any) -> None:
    _, widget = served(kernel)
    widget.send({"op": "follow"})
    assert kernel.follow(lambda: len(lines(widget)) >= 3)
    assert [line["event"] for line in lines(widget)[:3]] == ["begin", "stats", "stats"]
    assert lines(widget)[1]["endpoint"]["name"] == "echo"
    assert kernel.ok(THREADS).value == FOLLOWED
    widget.send({"op": "unfollow"})
    assert threads_are(kernel, "['nbserve-picture-echo']")


def test_calls_change_the_endpoint_and_bring_files(kernel: Any) -> None:
    _, widget = served(kernel)
    reply, _ = replied(kernel, widget, 1, "PATCH", "", {"max_batch_size": 16})
    assert reply["body"]["settings"]["max_batch_size"] == 16
    assert "max_batch_size = 16" in kernel.ok("%serve config echo").text
    reply, _ = replied(kernel, widget, 2, "PATCH", "", {"max_batch_size": 0})
    assert (reply["status"], reply["body"]["type"]) == (400, "ConfigError")
    reply, _ = replied(kernel, widget, 3, "POST", "/predict", {"body": "[1, 2]"})
    assert reply["body"]["status"] == 200
    reply, [archive] = replied(kernel, widget, 4, "GET", "/bundle")
    assert (reply["content_type"], reply["body"]) == ("application/gzip", None)
    assert archive[:2] == b"\x1f\x8b"
    reply, [page] = replied(kernel, widget, 5, "POST", "/profile", {"batches": 5})
    assert reply["content_type"].startswith("text/html")
    assert page.startswith(b"<!doctype html>")


def test_the_last_line_says_that_the_endpoint_is_gone(kernel: Any) -> None:
    _, widget = served(kernel)
    widget.send({"op": "follow"})
    assert kernel.follow(lambda: lines(widget))
    kernel.ok("%serve stop echo")
    assert kernel.follow(lambda: lines(widget)[-1] == {"event": "gone"})
    assert threads_are(kernel, "[]")


def test_a_panel_that_the_browser_closes_is_made_anew(kernel: Any) -> None:
    _, widget = served(kernel)
    widget.send({"op": "follow"})
    assert kernel.follow(lambda: lines(widget))
    widget.close()
    assert threads_are(kernel, "['nbserve-picture-echo']")
    again = widget_of(kernel, kernel.ok("%serve panel echo", A_PERSON))
    assert again is not widget
    again.send({"op": "follow"})
    assert kernel.follow(lambda: lines(again))


def test_a_cell_that_wants_no_panel_gets_the_card_as_before(kernel: Any) -> None:
    outcome = kernel.ok(ECHO.replace("echo --max", "echo --no-panel --max"), A_PERSON)
    [card] = outcome.displays
    assert "max_batch_size=4" in card["data"]["text/html"]


def test_the_kernel_ends_quickly_while_a_panel_follows(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    _, widget = served(kernel)
    widget.send({"op": "follow"})
    assert kernel.follow(lambda: lines(widget))
    kernel.client.shutdown()
    assert kernel.follow(lambda: not kernel.manager.is_alive(), within_s=10)


def test_without_widgets_there_is_the_card(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    kernel.ok("import sys; sys.modules['anywidget'] = None")
    [card] = kernel.ok(ECHO, A_PERSON).displays
    assert "max_batch_size=4" in card["data"]["text/html"]
    [shown] = kernel.ok("%serve panel echo", A_PERSON).displays
    assert "0 answers/s" in shown["data"]["text/plain"]


def test_pictures_of_an_endpoint_change_together_when_there_is_news(kernel: Any) -> None:
    outcome, _ = served(kernel)
    [first] = pictures(outcome)
    [second] = pictures(kernel.ok("%serve panel echo", A_PERSON))
    before = png(second)
    kernel.ok("%serve config echo max_batch_size=11")
    assert kernel.follow(lambda: png(first) != before and png(second) != before, within_s=30)
    assert png(first) == png(second)
    before = png(first)
    kernel.ok("%serve stop echo")
    assert kernel.follow(lambda: png(first) != before)
    assert threads_are(kernel, "[]")


def test_an_endpoint_that_is_served_again_at_once_is_followed_anew(kernel: Any) -> None:
    served(kernel)
    kernel.ok("%serve stop echo")
    outcome, widget = served(kernel)
    [picture] = pictures(outcome)
    assert kernel.ok(THREADS).value == "['nbserve-picture-echo']"
    before = png(picture)
    kernel.ok("%serve config echo max_batch_size=12")
    assert kernel.follow(lambda: png(picture) != before, within_s=30)
    widget.send({"op": "follow"})
    assert kernel.follow(lambda: [line["event"] for line in lines(widget)[-2:]] == ["stats", "stats"])


def test_running_a_cell_again_piles_nothing_up(kernel: Any) -> None:
    _, first = served(kernel)
    widgets = len(kernel.widgets)
    for _ in range(3):
        outcome, again = served(kernel)
        assert len(outcome.displays) == 3
        assert again is first
    assert len(kernel.widgets) == widgets
    assert kernel.ok(THREADS).value == "['nbserve-picture-echo']"


def test_an_endpoint_shows_its_card_and_when_asked_its_panel(kernel: Any) -> None:
    served(kernel)
    kernel.ok("import nbserve\nep = nbserve.endpoint('echo')")
    shown = kernel.ok("ep", A_PERSON)
    assert not shown.displays
    assert "max_batch_size=4" in (shown.value or "")
    panel, picture = kernel.ok("ep.panel()", A_PERSON).displays
    assert WIDGET_VIEW in panel["data"]
    assert "image/png" in picture["data"]


def test_a_cell_that_only_runs_has_card_and_picture(kernel: Any) -> None:
    before = len(kernel.widgets)
    card, picture = kernel.ok(ECHO).displays
    assert "max_batch_size=4" in card["data"]["text/html"]
    assert png(picture)[:4] == b"\x89PNG"
    assert len(kernel.widgets) == before


def test_an_executed_notebook_can_be_read_as_a_page(tmp_path: Path) -> None:
    sources = ["%load_ext nbserve", ECHO, "%serve predict echo [1, 2]", "%serve panel echo", "%serve stop echo"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, served, _, shown, _ = notebook.cells
    assert ["image/png" in output.data for output in served.outputs] == [False, True]
    assert [WIDGET_VIEW in output.data for output in shown.outputs] == [True, False]
    # What is read where no widget can be: on GitHub, and in a page of a notebook saved without its widgets.
    assert "1 ready (cpu)" in shown.outputs[0].data["text/plain"]
    del notebook.metadata["widgets"]
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert page.count('src="data:image/png;base64,') == 2
    assert page.count("1 ready (cpu)") == 2
    assert "application/vnd.jupyter.widget-view+json" not in page
    assert "Error displaying widget" not in page


def test_a_notebook_that_follows_none_has_a_picture_of_what_it_did(tmp_path: Path) -> None:
    """Who executes a notebook takes outputs of the running cell alone: the picture changes in those that follow."""
    wait = "import time\nwhile time.time() < began + 14: ep.predict([1]); time.sleep(0.2)"
    sources = [
        "%load_ext nbserve",
        ECHO,
        "import nbserve, time\nbegan = time.time()\nep = nbserve.endpoint('echo')",
        wait,
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources[:2]])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    idle = notebook.cells[1].outputs[1].data["image/png"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(notebook.cells[1].outputs[1].data["image/png"]) > len(idle) * 1.05


def test_help_tells_of_the_panel(kernel: Any) -> None:
    assert "usage: %serve panel" in kernel.ok("%serve panel --help").text
    assert "--no-panel" in kernel.ok("%%serve --help").text
