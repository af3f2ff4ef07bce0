"""The panel in a real kernel: what a cell shows, and what travels by comm when the browser has no other way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytestmark = [pytest.mark.notebook, pytest.mark.process]

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ECHO = "%%serve echo --max-batch-size 4\ndef echo(requests):\n    return requests\n"
THREADS = "import threading; sorted(t.name for t in threading.enumerate() if t.name.startswith('nbserve-panel'))"
# A person looks on: their front end can be asked for input.
A_PERSON: Sequence[Any] = ()


@pytest.fixture(autouse=True)
def nothing_is_served_afterwards(kernel: Any) -> Any:
    yield
    kernel.run("%serve stop echo")
    assert threads_are(kernel, "[]")


def served(kernel: Any, cell: str = ECHO) -> Any:
    """The cell's outcome and the widget of its panel."""
    outcome = kernel.ok(cell, A_PERSON)
    return outcome, widget_of(kernel, outcome)


def widget_of(kernel: Any, outcome: Any) -> Any:
    [view] = [display["data"][WIDGET_VIEW] for display in outcome.displays if WIDGET_VIEW in display["data"]]
    return kernel.widgets[view["model_id"]]


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
    card, panel = outcome.displays[:2]
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
    assert kernel.ok(THREADS).value == "['nbserve-panel-echo']"
    widget.send({"op": "unfollow"})
    assert threads_are(kernel, "[]")


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
    assert threads_are(kernel, "[]")
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


def test_help_tells_of_the_panel(kernel: Any) -> None:
    assert "usage: %serve panel" in kernel.ok("%serve panel --help").text
    assert "--no-panel" in kernel.ok("%%serve --help").text
