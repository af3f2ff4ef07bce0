"""The benchmark's pure parts: wrk's output, medians and ratios, verdicts, tables. No server is started."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


WRK_OUTPUT = """Running 2s test @ http://127.0.0.1:8000/predict
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     7.02ms    1.10ms  20.44ms   88.00%
  9000 requests in 2.00s, 1.20MB read
Requests/sec:   4500.00
{"requests":9000,"duration_us":2000000,"p50_us":7000,"p99_us":12500,"connect":0,"read":1,"write":0,"status":2,"timeout":0}
"""


def test_wrk_output_is_parsed_and_every_kind_of_error_counts() -> None:
    from benchmarks.load import parse

    load = parse(WRK_OUTPUT)
    assert (load.requests, load.seconds, load.p50_ms, load.p99_ms, load.errors) == (9000, 2.0, 7.0, 12.5, 3)
    assert load.requests_per_s == 4500


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused\n"])
def test_wrk_without_a_result_is_an_error(output: str) -> None:
    from benchmarks.load import parse

    with pytest.raises(ValueError, match="printed no result"):
        parse(output)


def point(server: str, rate: float, *, round: int = 0, p50_ms: float = 1.0, errors: int = 0, **where: Any) -> Any:
    row = {"workload": "echo", "workers": 1, "connections": 32, **where}
    measured = {"requests_per_s": rate, "p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "cpu_us": 10.0, "errors": errors}
    return {**row, "server": server, "round": round, **measured}


def limit(*rates: dict[str, float], workload: str = "mlp", round: int = 0, workers: int = 1) -> dict[str, Any]:
    return {"workload": workload, "workers": workers, "processes": len(rates), "round": round, "rates": list(rates)}


RUN = {
    "date": "2026-11-23",
    "machine": "2 cores",
    "command": "python -m benchmarks",
    "rounds": 3,
    "seconds": 2,
    "threads": 1,
    "minutes": 30.0,
}


def test_ratios_are_taken_within_a_round_so_that_drift_cancels() -> None:
    from benchmarks.results import Results, Row

    own = [point("nbserve", rate, round=number) for number, rate in enumerate((200.0, 20.0, 2.0))]
    peer = [point("mosec", rate, round=number) for number, rate in enumerate((100.0, 10.0, 1.0))]
    results = Results({"point": own + peer})
    row = Row("echo", 1, 32)
    assert results.ratio_to_peer(row, "mosec") == 2.0
    cell = results.cell(row, "nbserve")
    assert cell is not None
    assert cell.requests_per_s == 20.0


def test_a_row_with_errors_is_disqualified_as_peer_and_in_ratios() -> None:
    from benchmarks.results import Results, Row

    results = Results({"point": [point("nbserve", 100), point("mosec", 900, errors=1), point("ray", 50)]})
    row = Row("echo", 1, 32)
    assert list(results.peers(row)) == ["ray"]
    assert results.ratio_to_peer(row, "mosec") is None


def test_the_limit_is_the_best_batch_size_with_all_loops_together() -> None:
    from benchmarks.results import Results, Row

    one = limit({"1": 50.0, "8": 120.0, "32": 100.0}, workers=2)
    two = limit({"1": 40.0, "8": 90.0, "32": 100.0}, {"1": 40.0, "8": 80.0, "32": 100.0}, workers=2)
    own = point("nbserve", 180.0, workload="mlp", workers=2)
    results = Results({"point": [own], "limit": [one, two]})
    assert results.limit("mlp", 2, processes=1) == 120.0
    assert results.limit("mlp", 2, processes=2) == 200.0
    row = Row("mlp", 2, 32)
    assert results.ratio_to_limit(row, 1, times=2) == 0.75
    assert results.ratio_to_limit(row, 2) == 0.9


def test_verdicts_say_met_missed_and_not_measured() -> None:
    from benchmarks.results import Results
    from benchmarks.targets import verdicts

    records = {"point": [point("nbserve", 300), point("mosec", 100)], "extras": {"cold_s": {"nbserve": 3.0}}}
    found = {verdict.what: verdict for verdict in verdicts(Results(records))}
    echo = found["echo, 32 connections, 1 worker: requests/s against the fastest peer"]
    assert (echo.measured, echo.is_met, echo.against) == (3.0, True, "mosec")
    assert found["cold `nbserve serve BUNDLE` to the first answer"].is_met is False
    assert found["PSS with one MLP worker"].is_met is None


def test_tables_show_disqualified_missing_and_failed_rows() -> None:
    from benchmarks.report import markdown

    points = [point("nbserve", 12345.6), point("mosec", 900, errors=7), point("ray", 50, connections=1)]
    failure = {"server": "bentoml", "workload": "echo", "workers": 1, "reason": "no answer 200 within 60 s"}
    text = markdown({"run": RUN, "point": points, "failure": [failure], "extras": {}}, {"ray": "Ray Serve"})
    assert "| nbserve | not measured | 12346 (1.00/2.00) | 10.0 |" in text
    assert "| mosec | not measured | **disqualified: 7 errors** | 10.0 |" in text
    assert "| Ray Serve | 50.0 (1.00/2.00) | not measured |  |" in text
    assert "| bentoml | not measured | not measured |  |" in text
    assert "- bentoml, echo: no answer 200 within 60 s" in text


def test_every_table_has_as_many_cells_in_each_line() -> None:
    from benchmarks.report import markdown

    records = {
        "run": RUN,
        "point": [point("nbserve", 300, workload="mlp"), point("fastapi", 100, workload="mlp", connections=1)],
        "limit": [limit({"1": 500.0})],
        "extras": {"cold_s": {"nbserve": 2.0}, "memory": {"nbserve": {"pss_mb": 200.0, "processes": 3}}},
    }
    lines = markdown(records, {}).splitlines()
    tables = [line.count(" | ") if line.startswith("| ") else None for line in lines]
    pairs = [(one, two) for one, two in itertools.pairwise(tables) if None not in (one, two)]
    assert len(pairs) > 20
    assert all(one == two for one, two in pairs)


def test_only_the_text_between_the_markers_changes() -> None:
    from benchmarks.report import BEGIN, END, between_markers

    text = between_markers(f"before\n{BEGIN}\nold\n{END}\nafter\n", "\nnew\n")
    assert text == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="lacks the markers"):
        between_markers("no markers", "new")


def test_the_readme_has_the_markers() -> None:
    from benchmarks.report import BEGIN, DEBUG_COST, END, PROFILE_COST, between_markers

    for markers in ((BEGIN, END), DEBUG_COST, PROFILE_COST):
        assert "tables" in between_markers((ROOT / "benchmarks" / "README.md").read_text(), "tables", markers)


def test_the_cost_of_debugging_is_a_ratio_within_each_round() -> None:
    from benchmarks.debug_cost import BASE, VARIANTS, markdown

    other, unmeasured = VARIANTS[-1], VARIANTS[-2]
    text = markdown({"requests/s": {BASE: [100, 10], other: [50, 5], unmeasured: []}}, "--rounds 2")
    assert f"| {BASE.title} | 55.0 |\n" in text
    assert f"| {other.title} | 27.5 (0.50; 0.50 to 0.50) |\n" in text
    assert text.endswith(f"| {unmeasured.title} |  |")


def test_the_cost_of_recording_is_a_ratio_within_each_turn() -> None:
    from benchmarks.profile_cost import BASE, VARIANTS, Cost, markdown

    recorded, plain = VARIANTS[3], VARIANTS[1]
    costs = {"echo": {BASE: Cost([100, 10]), plain: Cost([100, 10]), recorded: Cost([200, 20], [3000, 1000])}}
    text = markdown(costs, 12.5, "--rounds 2")
    assert f"| {BASE.title} | 55.0 |  |\n" in text
    assert f"| {plain.title} | 55.0 (1.00; 1.00 to 1.00) |  |\n" in text
    assert text.endswith(f"| {recorded.title} | 110 (2.00; 2.00 to 2.00) | 2.00 |")
    assert "12.5 ns" in text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.843, "0.84"), (12.34, "12.3"), (12345.6, "12346")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    from benchmarks.report import number

    assert number(value) == text


@pytest.mark.parametrize(
    ("connections", "rate", "seconds"), [(1, 100.0, 2), (128, 10_000.0, 2), (128, 128.0, 4), (128, 1.0, 8)]
)
def test_a_slow_server_gets_time_for_several_answers_per_connection(
    connections: int, rate: float, seconds: int
) -> None:
    from benchmarks.compare import long_enough

    assert long_enough(2, connections, rate) == seconds


def test_answers_may_differ_in_the_last_digits_only() -> None:
    from benchmarks.verify import same

    assert same([0.12345, 1.0], [0.1234501, 1.0])
    assert not same([0.12345, 1.0], [0.13345, 1.0])
    assert not same([1.0], [1.0, 2.0])
    assert not same({"id": 1}, {"id": 2})
    assert not same(math.nan, 1.0)


def test_bodies_are_the_same_every_time_and_of_the_promised_size() -> None:
    from benchmarks.workloads import WORKLOADS, examples

    for name in WORKLOADS:
        assert examples(name, 3) == examples(name, 3)
        assert len(set(examples(name, 3))) == 3
    assert len(examples("echo", 1)[0]) == 100
    assert len(examples("image", 1)[0]) == 150_528
    assert len(json.loads(examples("mlp", 1)[0])) == 256
    assert len(json.loads(examples("encoder", 1)[0])) == 64


def test_the_options_name_what_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.run import main

    with pytest.raises(SystemExit):
        main(["--servers", "nbserve,mosek"])
    assert "'mosek' is none of nbserve, mosec" in capsys.readouterr().err


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """A command that leaves a daemon behind, in a session of its own and deaf to SIGTERM; and where its pid goes."""
    pid_file = tmp_path / "pid"
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    lonely = f"{ignore}import os, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    parent = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {lonely!r}], start_new_session=True)"
    )
    yield [sys.executable, "-c", f"{parent}; time.sleep(60)"], pid_file
    if pid_file.exists() and psutil.pid_exists(int(pid_file.read_text())):
        os.kill(int(pid_file.read_text()), 9)


@pytest.mark.process
def test_a_stopped_server_leaves_no_daemon_behind(daemon: tuple[list[str], Path], monkeypatch: Any) -> None:
    from benchmarks.processes import ServerProcess

    command, pid_file = daemon
    with ServerProcess(command, {}) as server:
        pid = _pid_in(pid_file)
        assert pid in [process.pid for process in server.processes()]
        server.freeze()
        # The kernel stops a running process when it next gets to it.
        deadline_s = time.monotonic() + 10
        while {process.status() for process in server.processes()} != {psutil.STATUS_STOPPED}:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    assert not psutil.pid_exists(pid)
    assert not server.scratch.exists()


@pytest.mark.process
def test_a_server_ends_when_the_benchmark_is_killed(daemon: tuple[list[str], Path]) -> None:
    command, pid_file = daemon
    program = (
        "import sys, time; from pathlib import Path; from benchmarks.processes import ServerProcess; "
        f"ServerProcess({command!r}, {{}}, Path({str(pid_file.parent)!r})); time.sleep(60)"
    )
    benchmark = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        pid = _pid_in(pid_file)
    finally:
        benchmark.kill()
        benchmark.wait()
    deadline_s = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def _pid_in(file: Path, limit_s: float = 20.0) -> int:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if file.exists() and (text := file.read_text()):
            return int(text)
        time.sleep(0.02)
    raise AssertionError("the daemon did not start")
