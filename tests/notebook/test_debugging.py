"""`%serve debug` in a real kernel with stdin on, while clients go on asking. The numbers are those of the scenarios."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nbserve.deployment import find_endpoint
from nbserve.errors import Conflict
from nbserve.verbs import Endpoint

pytestmark = [pytest.mark.notebook, pytest.mark.process]

SHOP = """%%serve shop --workers 2 --max-batch-size 1
import os
import sys
import threading
import time
import nbserve

class Shop(nbserve.Handler):
    def initialize(self, context):
        self.n = 1
        self.lock = threading.Lock()
        self.lock.acquire()

    def preprocess(self, requests):
        request = requests[0]
        xs = [request["x"]]
        if request.get("do") == "hold":
            breakpoint()
        if request.get("do") == "raise":
            y = 10 / (xs[0] - xs[0])
        total = sum(xs)
        return [(total, request)]

    def inference(self, rows):
        total, request = rows[0]
        getattr(self, request.get("do", "nothing"), self.nothing)(request)
        return [{"total": total, "n": self.n, "pid": os.getpid(), "traced": sys.gettrace() is not None}]

    def nothing(self, request):
        pass

    def nap(self, request):
        time.sleep(0.02)

    def sleep(self, request):
        time.sleep(60)

    def wait(self, request):
        self.lock.acquire()

    def loop(self, request):
        i = 0
        while not os.path.exists(request.get("until", "")):
            i += 1
"""
LINES = {line.strip(): number for number, line in enumerate(SHOP.splitlines(), 1)}
AT_HOLD, AT_RAISE, AT_TOTAL = (LINES[text] for text in ("breakpoint()", "y = 10 / (xs[0] - xs[0])", "total = sum(xs)"))
WITHIN_S = 30


def until(condition: Callable[[], Any], within_s: float = WITHIN_S) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ask(url: str, body: Any) -> tuple[int, Any]:
    """One request: status and answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request("POST", parts.path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


class Shop:
    """The endpoint as its clients and this process see it."""

    def __init__(self, endpoint: Endpoint, pool: ThreadPoolExecutor) -> None:
        self.endpoint = endpoint
        self.url = endpoint.url
        self._pool = pool

    def ask(self, x: int, do: str = "", **more: Any) -> tuple[int, Any]:
        return ask(self.url, {"x": x, "do": do, **more})

    def asking(self, x: int, do: str = "", **more: Any) -> Future[tuple[int, Any]]:
        """A request under way in another thread."""
        return self._pool.submit(self.ask, x, do, **more)

    def held(self) -> list[dict[str, Any]]:
        return [worker["held"] for worker in self.endpoint.stats()["workers"] if worker["held"]]

    def pids(self) -> set[int]:
        return {worker["pid"] for worker in self.endpoint.stats()["workers"] if worker["role"] == "worker"}

    def answers(self) -> dict[int, Any]:
        """What each worker answers, by its process."""
        found: dict[int, Any] = {}

        def have_all_answered() -> bool:
            for answer in [self.asking(1, "nap") for _ in range(4)]:
                found[answer.result()[1]["pid"]] = answer.result()[1]
            return set(found) >= self.pids()

        assert until(have_all_answered)
        return {pid: found[pid] for pid in self.pids()}

    def holding(self, x: int) -> Future[tuple[int, Any]]:
        """A request that has come to its breakpoint()."""
        answer = self.asking(x, "hold")
        assert until(self.held)
        return answer

    @contextmanager
    def load(self, clients: int = 2) -> Iterator[queue.SimpleQueue[int]]:
        """Clients that ask again and again; gives the statuses of their answers as they come."""
        statuses: queue.SimpleQueue[int] = queue.SimpleQueue()
        over = threading.Event()
        asking = [self._pool.submit(self._ask_on, statuses, over) for _ in range(clients)]
        try:
            yield statuses
        finally:
            over.set()
            for client in asking:
                client.result(timeout=60)
        assert {statuses.get() for _ in range(statuses.qsize())} <= {200}

    def _ask_on(self, statuses: queue.SimpleQueue[int], over: threading.Event) -> None:
        while not over.is_set():
            statuses.put(self.ask(1)[0])


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture(scope="module")
def served(kernel: Any) -> Any:
    return kernel.ok(SHOP)


@pytest.fixture
def shop(served: Any, pool: ThreadPoolExecutor) -> Shop:
    shop = Shop(find_endpoint("shop"), pool)
    assert until(lambda: not shop.held())
    return shop


def debug(kernel: Any, options: str, *replies: Any) -> Any:
    """A debugging cell with these replies at its prompts; none of its scenarios ends in an error."""
    outcome = kernel.run(f"%serve debug shop {options}".strip(), replies=replies)
    assert outcome.status == "ok", outcome.text
    return outcome


def test_1_a_breakpoint_is_debugged_in_a_cell(kernel: Any, shop: Shop) -> None:
    answer = shop.holding(3)
    assert (shop.held()[0]["line"], shop.held()[0]["function"]) in (
        (AT_HOLD, "preprocess"),
        (AT_HOLD + 1, "preprocess"),
    )
    with shop.load():
        shown = debug(kernel, "", "w", "l", "p xs", "n", "s", "!self.n = 77", "p self.n", "q").printed
    assert f"line {AT_HOLD}" in shown or f"line {AT_HOLD + 1}" in shown
    assert f'{AT_HOLD - 1}  \\t        if request.get("do") == "hold":'.replace("\\t", "\t") in shown
    assert "[3]" in shown
    assert "77" in shown
    assert "/nbserve/" not in shown
    assert answer.result(timeout=WITHIN_S) == (200, answer.result()[1])
    assert sorted(answer["n"] for answer in shop.answers().values()) == [1, 77]


def test_2_others_serve_while_one_is_held_longer_than_the_response_timeout(kernel: Any, shop: Shop) -> None:
    pids = shop.pids()
    shop.endpoint.configure(response_timeout_s=1.0)
    try:
        answer = shop.holding(3)
        [held] = shop.held()
        with shop.load() as statuses:
            assert until(lambda: statuses.qsize() >= 200 and time.time() > held["since_s"] + 1.5)
            assert 'state="HELD"' in shop.endpoint.server.metrics()
            assert [each["pid"] for each in shop.held()] == [held["pid"]]
            debug(kernel, "", "c")
        status, answered = answer.result(timeout=WITHIN_S)
    finally:
        shop.endpoint.configure(response_timeout_s=60.0)
    assert (status, answered["pid"]) == (200, held["pid"])
    assert shop.pids() == pids


def test_3_a_stop_at_a_method_needs_no_edit_and_leaves_no_tracing(kernel: Any, shop: Shop) -> None:
    with shop.load():
        shown = debug(kernel, "--at preprocess", "w", "p requests", "q")
    assert "preprocess" in shown.printed
    assert "'x': 1" in shown.printed
    assert not any(answer["traced"] for answer in shop.answers().values())


def test_3_a_stop_at_a_line_waits_for_its_condition(kernel: Any, shop: Shop) -> None:
    with shop.load():
        sent: list[Future[tuple[int, Any]]] = []

        def send_when_armed(outcome: Any) -> None:
            if not sent and f"line {AT_TOTAL}" in outcome.printed:
                # Both workers get one.
                sent.extend(shop.asking(50) for _ in range(8))

        line = f"%serve debug shop --at {AT_TOTAL} --if xs[0] > 2"
        outcome = kernel.run(line, send_when_armed, ["p xs", "q"])
        assert outcome.status == "ok", outcome.text
        assert "[50]" in outcome.printed
        assert [answer.result(timeout=WITHIN_S)[0] for answer in sent] == [200] * 8


def test_3_a_condition_that_raises_is_told_and_does_not_stop(kernel: Any, shop: Shop) -> None:
    with shop.load():
        outcome = kernel.run("%serve debug shop --at preprocess --if nothing > 2 --wait 1", replies=[])
    assert "name 'nothing' is not defined" in outcome.printed
    assert outcome.prompts == []
    assert "did not stop within 1 s" in outcome.error
    assert "Traceback" not in outcome.error


def test_4_everything_of_pdb_is_there(kernel: Any, shop: Shop) -> None:
    loop = ["for i in range(2):", "    print('row', i, xs)", ""]
    function = ["def twice(v):", "    return [v * total for _ in xs]", "", "print('twice', twice(2))"]
    interact = ["interact", "[x + total for x in xs]", "def inner():", "    return xs, total", "", "inner()", "exit()"]
    moves = [
        "u",
        "p type(self).__name__",
        "d",
        "tbreak inference",
        "display self.n",
        "c",
        "p rows",
        "!self.n += 1",
        "n",
    ]
    asked = f"--at {AT_TOTAL + 1} --request " + '{"x": 4, "do": "nothing"}'
    shown = debug(kernel, asked, *loop, *function, *interact, "self.?", *moves, "q").printed
    assert "row 1 [4]" in shown
    assert "twice [8]" in shown
    assert "[8]" in shown
    assert "([4], 4)" in shown
    assert "preprocess" in shown
    assert "Temporary breakpoint" in shown or "Deleted breakpoint" in shown
    assert "[(4, {" in shown
    assert "display self.n" in shown
    assert '"total":4' in shown.replace(" ", "")


def test_5_an_interrupt_at_the_prompt_detaches(kernel: Any, shop: Shop) -> None:
    answer = shop.holding(3)
    outcome = debug(kernel, "", "p xs", kernel.interrupt)
    assert "detached" in outcome.printed
    assert answer.result(timeout=WITHIN_S)[0] == 200
    assert until(lambda: not shop.held())


def test_5_an_interrupt_while_it_waits_leaves(kernel: Any, shop: Shop) -> None:
    interrupted: list[bool] = []

    def interrupt_once(outcome: Any) -> None:
        if not interrupted and "waiting" in outcome.printed:
            interrupted.append(True)
            kernel.interrupt()

    outcome = kernel.run("%serve debug shop", interrupt_once, [])
    assert outcome.status == "ok"
    assert len(outcome.printed.strip().splitlines()) <= 3
    assert shop.ask(1)[0] == 200


def test_5_an_interrupt_while_it_runs_leaves(kernel: Any, shop: Shop, tmp_path: Path) -> None:
    def interrupt_when_it_runs() -> None:
        assert until(lambda: not shop.held())
        kernel.interrupt()

    def go_on() -> str:
        threading.Thread(target=interrupt_when_it_runs).start()
        return "c"

    flag = tmp_path / "go"
    request = json.dumps({"x": 1, "do": "loop", "until": str(flag)})
    outcome = debug(kernel, f"--request {request}", "tbreak nothing", go_on)
    flag.touch()
    assert "detached" in outcome.printed or "left" in outcome.printed
    assert until(lambda: all(worker["state"] == "READY" for worker in shop.endpoint.stats()["workers"]))
    assert shop.ask(1)[0] == 200


def test_6_a_killed_kernel_resumes_its_worker(new_kernel: Any, pool: ThreadPoolExecutor) -> None:
    kernel = new_kernel()
    kernel.ok(SHOP.replace("%%serve shop", "%%serve lone --detach"))
    lone = Shop(find_endpoint("lone"), pool)
    try:
        answer = lone.holding(3)
        killed: list[float] = []

        def kill() -> None:
            os.kill(kernel.pid, signal.SIGKILL)
            killed.append(time.monotonic())
            raise InterruptedError

        with pytest.raises(InterruptedError):
            kernel.run("%serve debug lone", replies=[kill])
        assert answer.result(timeout=WITHIN_S)[0] == 200
        print(f"resumed {time.monotonic() - killed[0]:.3f} s after the kernel was killed")
        assert until(lambda: not lone.held())
    finally:
        lone.endpoint.server.stop()


def test_7_a_second_debugger_is_told_who_has_the_worker(kernel: Any, shop: Shop) -> None:
    answer = shop.holding(3)
    [held] = shop.held()
    refusals: list[str] = []

    def attach_too() -> str:
        with pytest.raises(Conflict) as refused:
            shop.endpoint.debug(worker=held["worker"], commands="w")
        refusals.append(str(refused.value))
        return "p xs"

    outcome = debug(kernel, "", attach_too, "c")
    assert f"worker {held['worker']} is being debugged by notebook, cell " in refusals[0]
    assert "[3]" in outcome.printed
    assert answer.result(timeout=WITHIN_S)[0] == 200


def test_7_sockets_are_for_this_user_alone(shop: Shop) -> None:
    sockets = list(shop.endpoint.server.run_file.directory.glob("w*.sock"))
    assert len(sockets) >= 2
    for path in sockets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("do", "line"), [("sleep", "time.sleep(60)"), ("wait", "self.lock.acquire()"), ("loop", "i += 1")]
)
def test_8_what_hangs_is_shown_and_failed(kernel: Any, shop: Shop, do: str, line: str) -> None:
    pids = shop.pids()
    answer = shop.asking(1, do)
    assert until(lambda: "BUSY" in {worker["state"] for worker in shop.endpoint.stats()["workers"]})
    with shop.load():
        outcome = debug(kernel, "--interrupt", "w", "fail not today")
        status, answered = answer.result(timeout=WITHIN_S)
    assert f"in {do}" in outcome.printed
    assert (line in outcome.printed) or do == "loop"
    assert status == 500
    assert "not today" in answered["message"]
    assert shop.pids() == pids


def test_10_the_last_error_is_looked_into_while_requests_are_served(kernel: Any, shop: Shop) -> None:
    assert shop.ask(7, "raise")[0] == 500
    with shop.load() as statuses:

        def wait_for_50() -> str:
            before = statuses.qsize()
            assert until(lambda: statuses.qsize() >= before + 50)
            return "p xs"

        outcome = debug(kernel, "--last-error", wait_for_50, "w", "q")
    assert "ZeroDivisionError" in outcome.printed
    assert "[7]" in outcome.printed
    assert f"({AT_RAISE})preprocess" in outcome.printed
    assert not shop.held()


def test_10_the_failed_request_is_replayed_in_a_worker_of_its_own(kernel: Any, shop: Shop) -> None:
    pids = shop.pids()
    status, failed = shop.ask(7, "raise")
    assert status == 500
    with shop.load():
        outcome = debug(kernel, "--replay", "c", "p xs", "c")
    assert "ZeroDivisionError" in outcome.printed
    assert "[7]" in outcome.printed
    assert failed["message"].rpartition(" ")[2] in outcome.printed
    assert shop.pids() == pids


def test_11_without_input_the_worker_resumes_and_commands_are_named(kernel: Any, shop: Shop) -> None:
    answer = shop.holding(3)
    outcome = kernel.ok("%serve debug shop")
    assert "--commands" in outcome.printed
    assert answer.result(timeout=WITHIN_S)[0] == 200


def test_11_commands_do_without_input(kernel: Any, shop: Shop) -> None:
    answer = shop.holding(3)
    outcome = kernel.ok('%serve debug shop --commands "p xs; !self.n = 5; c"')
    assert "[3]" in outcome.printed
    assert answer.result(timeout=WITHIN_S)[1]["n"] == 5


def test_11_nobody_held_is_a_short_error(kernel: Any, shop: Shop) -> None:
    outcome = kernel.run("%serve debug shop --commands w --wait 0.2")
    assert "no worker of shop was held within 0.2 s" in outcome.error
    assert "/nbserve/" not in outcome.error
    assert len(outcome.error.splitlines()) <= 2
    assert "no endpoint is named 'chop'" in kernel.run("%serve debug chop").error


def test_12_the_cell_returns_when_the_stopped_request_ends(kernel: Any, shop: Shop) -> None:
    with shop.load():
        outcome = debug(kernel, "--at preprocess", "n", "c", "p 'never asked'")
    assert len(outcome.prompts) == 2
    assert "never asked" not in outcome.printed


def test_a_request_is_sent_and_stopped_in_by_the_same_cell(kernel: Any, shop: Shop) -> None:
    kernel.ok("order = {'x': 21}")
    with shop.load():
        outcome = debug(kernel, "--request order", "p requests", "c")
    assert "[{'x': 21}]" in outcome.printed
    assert '"total":21' in outcome.printed.replace(" ", "")


def test_the_python_method_prompts_in_a_cell_too(kernel: Any, shop: Shop) -> None:
    code = "import nbserve\nnbserve.endpoint('shop').debug(request={'x': 2});"
    outcome = kernel.run(code, replies=["p requests", "c"])
    assert outcome.status == "ok", outcome.text
    assert "[{'x': 2}]" in outcome.printed
    refused = kernel.run(code)
    assert refused.error_name == "DebugError"
    assert "say what to do with commands=" in refused.error


def test_a_prediction_that_meets_a_breakpoint_is_debugged_where_it_was_asked(kernel: Any, shop: Shop) -> None:
    outcome = kernel.run('%serve predict shop {"x": 5, "do": "hold"}', replies=["p xs", "!xs[0] = 6", "c"])
    assert outcome.status == "ok", outcome.text
    assert "[5]" in outcome.printed
    assert "'total': 6" in outcome.value


def test_a_prediction_without_input_tells_who_can_attach_and_waits(kernel: Any, shop: Shop) -> None:
    attached: list[Future[str]] = []

    def attach_once(outcome: Any) -> None:
        if not attached and "nbserve attach shop" in outcome.printed:
            attached.append(shop._pool.submit(shop.endpoint.debug, commands="p xs; c"))

    outcome = kernel.run('%serve predict shop {"x": 5, "do": "hold"}', attach_once)
    assert "'total': 5" in outcome.value
    assert "[5]" in attached[0].result(timeout=WITHIN_S)


def test_a_prediction_that_waits_can_be_interrupted(kernel: Any, shop: Shop, tmp_path: Path) -> None:
    flag = tmp_path / "go"

    def interrupt_when_busy() -> None:
        assert until(lambda: "BUSY" in {worker["state"] for worker in shop.endpoint.stats()["workers"]})
        kernel.interrupt()

    threading.Thread(target=interrupt_when_busy).start()
    request = json.dumps({"x": 1, "do": "loop", "until": str(flag)})
    outcome = kernel.run(f"%serve predict shop {request}", replies=[])
    flag.touch()
    assert outcome.error_name == "KeyboardInterrupt"
    assert "/nbserve/" not in outcome.error


def test_a_failed_prediction_names_the_way_into_it(kernel: Any, shop: Shop) -> None:
    failed = kernel.run('%serve predict shop {"x": 1, "do": "raise"}')
    assert "%serve debug shop --last-error looks into it" in failed.error


def test_the_card_and_the_status_show_a_hold_and_its_end(kernel: Any, shop: Shop, served: Any) -> None:
    answer = shop.holding(3)
    assert kernel.follow(lambda: "%serve debug shop attaches" in served.text)
    assert "in preprocess, request " in served.text
    status = kernel.ok("%serve").text
    assert "1 held (cpu), 1 ready (cpu)" in status
    assert "%serve debug shop attaches" in status

    def look_at_the_card() -> str:
        assert kernel.follow(lambda: "debugged by notebook, cell " in served.text)
        return "c"

    debug(kernel, "", look_at_the_card)
    assert answer.result(timeout=WITHIN_S)[0] == 200
    assert kernel.follow(lambda: "held" not in served.text)
    assert "2 ready" in served.text


EARLY = """%%serve early
import nbserve

class Early(nbserve.Handler):
    def initialize(self, context):
        size = 3
        breakpoint()
        self.size = size

    def handle(self, requests, context):
        return [self.size for _ in requests]
"""


def test_a_breakpoint_in_initialize_is_debugged_in_the_cell_that_serves(kernel: Any) -> None:
    outcome = kernel.run(EARLY, replies=["p size", "!size = 4", "c"])
    assert outcome.status == "ok", outcome.text
    assert "1 ready (cpu)" in outcome.text
    assert kernel.ok("%serve predict early 0").value == "4"

    again = kernel.run(EARLY.replace("size = 3", "size = 5"), replies=["p size", kernel.interrupt])
    assert again.status == "ok", again.text
    assert "no worker" not in again.printed
    assert "1 ready (cpu)" in again.text
    assert kernel.ok("%serve predict early 0").value == "5"
    kernel.ok("%serve stop early")


def test_a_breakpoint_in_initialize_without_input_names_the_terminal(kernel: Any, pool: ThreadPoolExecutor) -> None:
    attached: list[Future[str]] = []

    def attach_once(outcome: Any) -> None:
        if not attached and "`nbserve attach early` debugs it" in outcome.text:
            attached.append(pool.submit(find_endpoint("early").debug, commands="!size = 6; c"))

    outcome = kernel.run(EARLY, attach_once)
    assert outcome.status == "ok", outcome.text
    assert kernel.ok("%serve predict early 0").value == "6"
    kernel.ok("%serve stop early")
