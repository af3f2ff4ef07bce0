"""`%serve profile` in a real kernel: what is shown, what is returned, and ways to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.notebook, pytest.mark.process]

ECHO = """%%serve echo --workers 2
import nbserve

class Echo(nbserve.Handler):
    def inference(self, batch):
        return batch
"""


@pytest.fixture(scope="module")
def served(kernel: Any) -> Iterator[Any]:
    kernel.ok(ECHO)
    kernel.ok("%serve predict echo [1, 2]")
    yield kernel
    kernel.ok("%serve stop echo")


def test_the_profile_is_the_value_of_the_line(served):
    served.ok("p = %serve profile echo --batches 5")
    outcome = served.ok("print(len(p.requests) >= 5, p.findings[0].name, type(p.ops).__name__)")
    assert outcome.printed.split()[0::2] == ["True", "list"]


def test_alone_it_is_shown_as_a_page_and_as_a_picture(served):
    outcome = served.ok("%serve profile echo --batches 5")
    told, page, picture = (display["data"] for display in outcome.displays)
    assert "recorded" in told["text/plain"]
    assert set(page) == {"text/html", "text/plain"}
    assert page["text/html"].startswith("<iframe srcdoc=")
    assert "the median request takes" in page["text/plain"]
    assert set(picture) == {"image/png", "text/plain"}
    assert picture["image/png"].startswith("iVBOR")
    again = served.ok("_")
    assert [set(display["data"]) for display in again.displays] == [set(page), set(picture)]


def test_a_request_may_be_an_expression(served):
    served.ok("image = [1, 2, 3]")
    outcome = served.ok(
        "q = %serve profile echo --batches 3 --request image + [4] --worker all\nprint(q.load['errors'])"
    )
    assert outcome.printed == "{}\n"


def test_a_fix_is_tried_out(served):
    outcome = served.ok("c = %serve profile echo --ab queue_size=10 --seconds 0.5\nprint(c.pairs > 0, c)")
    assert "queue_size=10: " in outcome.printed
    assert outcome.printed.startswith("True")
    assert "answers are the same" in outcome.printed


def test_an_interrupt_ends_the_recording_and_keeps_nothing(served):
    interrupted = []

    def interrupt(outcome: Any) -> None:
        if not interrupted and "recording: " in outcome.text and "recording: 0" not in outcome.text:
            interrupted.append(served.interrupt())

    outcome = served.run("%serve profile echo --seconds 3600", on_output=interrupt)
    assert (outcome.status, outcome.error_name) == ("error", "KeyboardInterrupt")
    assert "nothing was kept" in outcome.text
    assert "deployment.py" not in outcome.error
    served.ok("p = %serve profile echo --batches 2")


def test_errors_are_their_text_alone(served):
    outcome = served.run("%serve profile echo --worker 9")
    assert outcome.error_name == "NotFound"
    assert "no worker 9" in outcome.error
    assert "Traceback" not in outcome.error
    assert "there is no option --batch" in served.run("%serve profile echo --batch 3").printed
    assert "--ab" in served.ok("%serve profile --help").text


def test_loading_the_extension_does_not_import_what_reads_profiles(new_kernel):
    kernel = new_kernel()
    outcome = kernel.ok("import sys; print('nbserve.profiling.profile' in sys.modules)")
    assert outcome.printed == "False\n"
