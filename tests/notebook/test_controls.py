"""The widgets of the settings in a real kernel, bound both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.notebook, pytest.mark.process]

ECHO = "%%serve echo --max-batch-size 4 --no-panel\ndef echo(requests):\n    return requests\n"
THREADS = "import threading; [t.name for t in threading.enumerate() if t.name.startswith('nbserve-controls')]"


@pytest.fixture
def controls(kernel: Any) -> Any:
    """The kernel, in which `c` are the controls of an endpoint."""
    kernel.ok(ECHO)
    kernel.ok("import nbserve\nep = nbserve.endpoint('echo')\nc = ep.controls()")
    yield kernel
    kernel.ok("c.close()\nep.stop()")
    assert becomes(kernel, THREADS, "[]")


def becomes(kernel: Any, code: str, value: str) -> bool:
    return bool(kernel.follow(lambda: kernel.ok(code).value == value))


def widget_of(kernel: Any, code: str) -> Any:
    return kernel.widgets[kernel.ok(f"{code}.model_id").value.strip("'")]


def test_each_live_setting_has_its_widget(controls: Any) -> None:
    names = "['policy', 'max_batch_size', 'max_batch_delay_ms', 'workers', 'queue_size', 'response_timeout_s', "
    assert controls.ok("str(list(c))").value.strip('"') == f"{names}'threads_per_worker']"
    assert controls.ok("c['workers'] is c.workers, c.max_batch_size.value, len(c)").value == "(True, 4, 7)"
    assert "there is no control 'wokers'; there are: policy, " in controls.run("c.wokers").error
    shown = controls.ok("c").value
    assert "max_batch_size=4" in shown
    assert "'workers'" in controls.ok("[name for name in dir(c) if name == 'workers']").value


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("policy", "window", "'window'"),
        ("max_batch_size", 16, "16"),
        ("max_batch_delay_ms", 2.5, "2.5"),
        ("workers", 2, "2"),
        ("queue_size", 77, "77"),
        ("response_timeout_s", 5.0, "5.0"),
        ("threads_per_worker", 1, "1"),
    ],
)
def test_moving_a_widget_changes_the_setting(controls: Any, name: str, value: Any, told: str) -> None:
    widget = widget_of(controls, f"c.{name}")
    # A dropdown says which of its options by number.
    widget.set(**({"index": 1} if name == "policy" else {"value": value}))
    assert becomes(controls, f"ep.settings[{name!r}]", told)


def test_setting_a_value_in_python_does_too(controls: Any) -> None:
    controls.ok("c.max_batch_delay_ms.value = 3")
    assert becomes(controls, "ep.settings['max_batch_delay_ms'], ep.settings['policy']", "(3.0, 'window')")
    assert becomes(controls, "c.policy.value", "'window'")


def test_a_change_made_elsewhere_moves_the_widgets_of_all(controls: Any) -> None:
    controls.ok("d = ep.controls()")
    controls.ok("%serve config echo max_batch_size=300 queue_size=50")
    for each in ("c", "d"):
        assert becomes(controls, f"{each}.max_batch_size.value, {each}.queue_size.value", "(300, 50)")
    assert controls.follow(lambda: widget_of(controls, "c.max_batch_size").state["value"] == 300)
    controls.ok("d.close()")


def test_of_many_moves_the_latest_wins(controls: Any) -> None:
    controls.ok("for size in range(5, 100): c.max_batch_size.value = size")
    assert becomes(controls, "ep.settings['max_batch_size']", "99")
    assert becomes(controls, "c.max_batch_size.value", "99")


def test_a_refused_value_is_told_and_taken_back(controls: Any) -> None:
    controls.ok("c.workers.min = -5\nc.workers.value = -1")
    assert becomes(controls, "c.workers.value", "1")
    message = next(w for w in controls.widgets.values() if "workers is -1" in str(w.state.get("value", "")))
    assert "the least it can be is 1" in message.state["value"]
    controls.ok("c.queue_size.value = 60")
    assert controls.follow(lambda: message.state["value"] == "")


def test_a_person_s_own_widgets_can_be_linked(controls: Any) -> None:
    controls.ok(
        "import ipywidgets\nmine = ipywidgets.IntText()\n"
        "ipywidgets.link((c.max_batch_size, 'value'), (mine, 'value'))\n"
        "def twice(change): c.queue_size.value = 2 * change['new']\n"
        "c.max_batch_size.observe(twice, 'value')"
    )
    controls.ok("mine.value = 24")
    assert becomes(controls, "ep.settings['max_batch_size'], ep.settings['queue_size']", "(24, 48)")
    controls.ok("%serve config echo max_batch_size=32")
    assert becomes(controls, "mine.value, ep.settings['queue_size']", "(32, 64)")


def test_closed_controls_are_bound_no_more(controls: Any) -> None:
    controls.ok("c.close()\nc.max_batch_size.value = 9")
    assert becomes(controls, THREADS, "[]")
    controls.ok("%serve config echo max_batch_size=7")
    assert controls.ok("c.max_batch_size.value, ep.settings['max_batch_size']").value == "(9, 7)"


def test_without_the_endpoint_they_can_not_be_moved(kernel: Any) -> None:
    kernel.ok(ECHO)
    kernel.ok("import nbserve\nc = nbserve.endpoint('echo').controls()\n%serve stop echo")
    assert becomes(kernel, "c.workers.disabled", "True")
    assert becomes(kernel, THREADS, "[]")


def test_without_ipywidgets_it_says_what_to_do(new_kernel: Callable[[], Any]) -> None:
    kernel = new_kernel()
    kernel.ok(ECHO)
    failed = kernel.run(
        "import sys\nsys.modules['ipywidgets'] = None\nimport nbserve\nnbserve.endpoint('echo').controls()"
    )
    assert "pip install ipywidgets" in failed.error
