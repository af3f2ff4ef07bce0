"""`%serve tune` in a real kernel: the frontier while it runs, the result, its picture, and an interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbserve.errors import AutoTuneError
from nbserve.notebook import tune
from nbserve.profiling.requests import Request
from nbserve.tune.options import TuneOptions

pytestmark = [pytest.mark.notebook, pytest.mark.process, pytest.mark.alone]

WAITS = """%%serve waits --max-batch-size 1
import time

import nbserve

class Waits(nbserve.Handler):
    def inference(self, batch):
        time.sleep(0.02)
        return batch
"""


@pytest.fixture(scope="module")
def served(kernel: Any) -> Iterator[Any]:
    kernel.ok(WAITS)
    kernel.ok("%serve predict waits [1, 2]")
    yield kernel
    kernel.ok("%serve stop waits")


def shown(outcome: Any, kind: str) -> list[str]:
    return [display["data"][kind] for display in outcome.displays if kind in display["data"]]


def test_the_frontier_is_drawn_live_and_the_result_takes_its_place(served):
    live: list[str] = []
    outcome = served.run(
        "t = %serve tune waits --p99-ms 500 --seconds 10\nt", on_output=lambda now: live.extend(shown(now, "text/html"))
    )
    assert outcome.status == "ok", outcome.text
    assert any("progressbar" in page and "<svg" in page for page in live)
    [page] = shown(outcome, "text/html")
    assert "<svg" in page
    assert "progressbar" not in page
    [picture] = shown(outcome, "image/png")
    assert picture.startswith("iVBOR")
    assert "requests/s" in outcome.displays[0]["data"]["text/plain"]
    again = served.ok("t")
    assert [set(display["data"]) for display in again.displays] == [
        {"text/html", "text/plain"},
        {"image/png", "text/plain"},
    ]
    assert served.ok("print(t.best.throughput > 0, t.goal.p99_ms, len(t.points) > 1)").printed == "True 500.0 True\n"


def test_an_interrupt_gives_the_best_so_far_and_changes_nothing(served):
    before = served.ok("%serve config waits").text
    interrupted: list[None] = []

    def interrupt(outcome: Any) -> None:
        if not interrupted and ", 6 clients" in "".join(shown(outcome, "text/html")):
            interrupted.append(served.interrupt())

    outcome = served.run("t = %serve tune waits --p99-ms 500 --seconds 600 --apply", on_output=interrupt)
    assert outcome.status == "ok", outcome.text
    assert "interrupted; the best so far" in outcome.text
    assert served.ok("print(t.is_interrupted, t.is_applied, t.best.throughput > 0)").printed == "True False True\n"
    assert served.ok("%serve config waits").text == before


def test_errors_are_their_text_alone(served):
    outcome = served.run("%serve tune waits --p99-ms 1 --seconds 10")
    assert outcome.error_name == "AutoTuneError"
    assert "nothing keeps a p99 of 1 ms" in outcome.error
    assert "Traceback" not in outcome.error
    assert "there is no option --p99" in served.run("%serve tune waits --p99 3").printed
    assert "--p99-ms" in served.ok("%serve tune --help").text


def asked(shell: Any, line: str) -> tuple[str, TuneOptions]:
    return tune.asked_of(shell, tune.parser(), line)


def test_the_line_is_read_as_in_other_verbs(shell, tmp_path):
    assert asked(shell, "digits") == ("digits", TuneOptions())
    assert asked(shell, "digits --p99-ms 50 --load 20 --apply --seconds 60") == (
        "digits",
        TuneOptions(50.0, 20.0, 60.0, apply=True),
    )
    shell.user_ns["image"] = [1, 2]
    _, options = asked(shell, "digits --request image + [3] --p99-ms 7")
    assert options == TuneOptions(7.0, requests=(Request("application/json", b"[1,2,3]"),))
    file = tmp_path / "a.bin"
    file.write_bytes(b"\0")
    _, options = asked(shell, f"digits --request @{file}")
    assert options.requests == (Request("application/octet-stream", b"\0"),)


def test_a_line_that_makes_no_sense_is_refused(shell):
    with pytest.raises(UsageError, match="--request takes JSON"):
        asked(shell, "digits --request")
    with pytest.raises(AutoTuneError, match="--content-type is about a --request"):
        asked(shell, "digits --content-type text/plain")
    with pytest.raises(AutoTuneError, match="--p99-ms is -1"):
        asked(shell, "digits --p99-ms -1")


def test_loading_the_extension_does_not_import_what_tunes(new_kernel):
    outcome = new_kernel().ok("import sys; print('nbserve.tune.session' in sys.modules)")
    assert outcome.printed == "False\n"
