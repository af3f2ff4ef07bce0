"""What is around the timeline: the summary, the tabs, themes, and the pages that it lives in."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Page, Route, expect

from nbserve.trace import ops, page, picture
from nbserve.trace.model import Timeline
from tests.browser.canvas import Canvas
from tests.browser.conftest import SHOWN

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
NOTEBOOK = """<!doctype html><body data-jp-theme-light="{light}">
<script id="jupyter-config-data" type="application/json">{{"baseUrl": "/user/ann/"}}</script>{frame}</body>"""
PERFETTO = """<!doctype html><script>
addEventListener("message", (event) => {
  if (event.data === "PING") event.source.postMessage("PONG", "*");
  else window.received = event.data;
});
</script>"""


def test_the_first_line_says_where_the_time_goes(open_trace: Open, timelines: dict[str, Timeline]) -> None:
    view = open_trace("stripes")
    sentence = view.locator(".sentence")
    expect(sentence).to_contain_text("The median request to stripes took 4.")
    expect(sentence).to_contain_text("% inference")
    expect(view.get_by_role("img", name="receive")).to_be_visible()
    finding = view.get_by_role("region", name="findings")
    expect(finding).to_contain_text("Launch bound", ignore_case=True)
    expect(finding.locator("code")).to_contain_text("%serve profile stripes --ab compile=inductor")
    sentence.get_by_role("button", name="show it").click()
    expect(view.locator(".details h3")).to_contain_text("request ")


def test_the_command_that_proves_a_fix_is_copied(open_trace: Open) -> None:
    view = open_trace("bars", permissions=["clipboard-read", "clipboard-write"])
    view.get_by_role("button", name="copy", exact=True).click()
    expect(view.get_by_role("button", name="copied")).to_be_visible()
    assert view.evaluate("navigator.clipboard.readText()") == "%serve profile bars --ab dtype=bfloat16"


def test_the_table_has_the_totals_and_sorts(open_trace: Open, timelines: dict[str, Timeline]) -> None:
    view = open_trace("cpu")
    view.get_by_role("tab", name="Operators").click()
    table = view.get_by_role("region", name="table of operators")
    rows = ops.table(timelines["cpu"])
    assert _names(table) == [row.name for row in rows]
    table.get_by_role("button", name="calls").click()
    calls = [int(text.replace(",", "")) for text in table.locator("tbody td:last-child").all_inner_texts()]
    assert calls == sorted((row.calls for row in rows), reverse=True)
    table.get_by_role("button", name="operator").click()
    assert _names(table)[0] == min((row.name for row in rows), key=str.lower)
    table.get_by_role("button", name="aten::bmm").click()
    expect(view.locator("output")).to_contain_text(" · ")


def test_the_flame_graph_opens_what_is_clicked(open_trace: Open) -> None:
    view = open_trace("cpu")
    view.get_by_role("tab", name="Flame graph").click()
    box = view.get_by_role("treeitem", name="_native_multi_head_attention")
    narrow = box.bounding_box()
    box.click()
    wide = box.bounding_box()
    assert narrow
    assert wide
    assert wide["width"] > narrow["width"] + 50
    assert "self " in str(box.get_attribute("title"))
    view.get_by_role("treeitem", name="all").click()
    assert box.bounding_box() == narrow


def test_python_stacks_have_a_flame_graph_of_their_own(open_trace: Open) -> None:
    view = open_trace("cpu")
    view.get_by_role("tab", name="Python stacks").click()
    title = str(view.get_by_role("treeitem", name="tokenize").get_attribute("title"))
    assert "cell 3:8" in title
    assert "25.0 ms (28 %)" in title


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_the_theme_is_the_one_that_the_person_prefers(open_trace: Open, scheme: str, is_dark: bool) -> None:
    view = open_trace("cpu", color_scheme=scheme)
    corner = Canvas(view, view).pixels()[-2, -2]
    assert bool(corner.mean() < 60) is is_dark


# A cell of a page of 480 pixels has 434 of them.
@pytest.mark.parametrize("width", [434, 1400])
def test_narrow_and_wide_cells_have_all_in_view(open_trace: Open, width: int) -> None:
    view = open_trace("stripes", width=width, device_scale_factor=2)
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert view.evaluate("document.querySelector('canvas').width") > 1.9 * (width - 30)
    expect(view.get_by_role("button", name="Download trace")).to_be_in_viewport(ratio=1)
    for tab in ("Timeline", "Flame graph", "Operators"):
        view.get_by_role("tab", name=tab).click()
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_trace_is_downloaded_for_perfetto(open_trace: Open, timelines: dict[str, Timeline]) -> None:
    view = open_trace("stripes")
    with view.expect_download() as waiting:
        view.get_by_role("button", name="Download trace").click()
    assert waiting.value.suggested_filename == "stripes.trace.json"
    events = json.loads(Path(waiting.value.path()).read_text())["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    of_workers = [event for event in complete if event["cat"] not in ("request", "stage")]
    assert len(of_workers) == len(timelines["stripes"].events)
    assert sum(event["cat"] == "request" for event in complete) == len(timelines["stripes"].spans)
    launches, kernels = ({event["id"] for event in events if event["ph"] == phase} for phase in "sf")
    assert kernels <= launches


def test_a_damaged_trace_says_so(new_page: Callable[..., Page], packs: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "damaged.html"
    path.write_text(page.document(packs["cpu"][:1000]))
    view = new_page()
    view.goto(path.as_uri())
    expect(view.get_by_role("alert")).to_contain_text("The timeline cannot be shown")


def test_a_notebook_gives_its_theme_and_opens_perfetto(new_page: Callable[..., Page], packs: dict[str, bytes]) -> None:
    view = new_page()

    def answer(route: Route) -> None:
        is_perfetto = "/user/ann/nbserve/perfetto/" in route.request.url
        body = PERFETTO if is_perfetto else NOTEBOOK.format(light="false", frame=page.page(packs["bars"]))
        route.fulfill(content_type="text/html", body=body)

    view.context.route("http://lab.test/**", answer)
    view.goto("http://lab.test/user/ann/lab")
    frame = view.frames[1]
    frame.wait_for_selector(SHOWN)
    assert Canvas(view, frame).pixels()[-2, -2].mean() < 60
    view.evaluate("document.body.dataset.jpThemeLight = 'true'")
    frame.wait_for_selector("html[data-theme=light]")
    with view.expect_popup() as popup:
        frame.get_by_role("button", name="Open in Perfetto").click()
    popup.value.wait_for_function("window.received")
    assert popup.value.url.endswith("/user/ann/nbserve/perfetto/index.html#!/viewer?hideSidebar=true")
    assert popup.value.evaluate("received.perfetto.title") == "bars (nbserve)"
    assert popup.value.evaluate("received.perfetto.buffer.byteLength") > 10_000


def test_a_notebook_saved_as_html_stays_interactive(
    new_page: Callable[..., Page], packs: dict[str, bytes], timelines: dict[str, Timeline], tmp_path: Path
) -> None:
    images = [base64.b64encode(picture.png(timelines[name])).decode() for name in ("cpu", "bars")]
    data = [{"text/html": page.page(packs["cpu"])}, *({"image/png": image} for image in images)]
    outputs = [nbformat.v4.new_output("display_data", each) for each in data]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("p", outputs=outputs)])
    body, _ = HTMLExporter().from_notebook_node(notebook)
    path = tmp_path / "saved.html"
    path.write_text(body)
    view = new_page()
    view.goto(path.as_uri(), wait_until="commit")
    frame = view.locator("iframe").element_handle().content_frame()
    assert frame
    frame.wait_for_selector(SHOWN)
    # What follows it is the same once more; what follows that is somebody else's.
    assert [image.is_visible() for image in view.locator("img").all()] == [False, True]
    canvas = Canvas(view, frame)
    whole = canvas.shown()
    canvas.press("w")
    assert canvas.shown() != whole
    batch = canvas.event("nbserve.batch 1")
    canvas.come_close(batch)
    assert canvas.hover("event", batch).startswith("nbserve.batch 1")
    height = view.locator("iframe").bounding_box()
    assert height
    assert frame.evaluate("document.documentElement.scrollHeight") <= height["height"] + 1


def _names(table: object) -> list[str]:
    return [str(link.get_attribute("title")) for link in table.locator("tbody .link").all()]  # type: ignore[attr-defined]
