"""From a run's records to Markdown, written between two markers of benchmarks/README.md. Pure but for `write`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import SELF, Cell, Results, Row
from benchmarks.targets import Verdict, verdicts

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
DEBUG_COST = ("<!-- debug cost: begin -->", "<!-- debug cost: end -->")
PROFILE_COST = ("<!-- profile cost: begin -->", "<!-- profile cost: end -->")
AUTOTUNE = ("<!-- autotune: begin -->", "<!-- autotune: end -->")
CPU_CONNECTIONS = 32


def write(readme: Path, records: Mapping[str, Any], titles: Mapping[str, str]) -> None:
    """Puts the tables between the markers; the prose around them stays."""
    readme.write_text(between_markers(readme.read_text(), markdown(records, titles)))


def between_markers(text: str, tables: str, markers: tuple[str, str] = (BEGIN, END)) -> str:
    before, begin, rest = text.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"the text lacks the markers {markers[0]} and {markers[1]}")
    return f"{before}{begin}\n{tables.strip()}\n{end}{after}"


def markdown(records: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """All tables of a run: targets first, then one table per workload and number of workers, then start and memory."""
    results = Results(dict(records))
    parts = [_head(records["run"]), "### Targets", _targets(verdicts(results), titles)]
    for workload in results.distinct("workload"):
        for workers in results.distinct("workers"):
            parts += [
                f"### {workload}, {workers} worker{'s' * (workers > 1)}",
                _row_table(results, workload, workers, titles),
            ]
    parts += ["### Start and memory", _extras(results.extras, titles), *_failures(results, titles)]
    return "\n\n".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Three significant digits, thousands whole: 0.84, 12.3, 456, 12345."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _head(run: Mapping[str, Any]) -> str:
    lines = [
        f"{run['date']}, {run['machine']}; `{run['command']}`: {run['rounds']} rounds of {run['seconds']} s a point,"
    ]
    lines.append(f"{run['threads']} torch thread(s) per worker, {run['minutes']:.0f} minutes in all.")
    lines.append(
        "Cells are requests/s (p50/p99 in ms), medians over the rounds; ratios are medians of the rounds' ratios."
    )
    return "\n".join(lines)


def _targets(all_verdicts: Iterable[Verdict], titles: Mapping[str, str]) -> str:
    rows = [
        [
            verdict.what + (f" ({titles.get(verdict.against, verdict.against)})" if verdict.against else ""),
            f"{'≥' if verdict.at_least else '≤'} {_with_unit(verdict.target, verdict.unit)}",
            "not measured" if verdict.measured is None else _with_unit(verdict.measured, verdict.unit),
            {True: "met", False: "**missed**", None: ""}[verdict.is_met],
        ]
        for verdict in all_verdicts
    ]
    return table(["target", "asked", "measured", ""], rows)


def _row_table(results: Results, workload: str, workers: int, titles: Mapping[str, str]) -> str:
    connections = sorted(results.distinct("connections"))
    rows = []
    for server in results.distinct("server"):
        cells = {count: results.cell(Row(workload, workers, count), server) for count in connections}
        cpu = cells.get(CPU_CONNECTIONS)
        texts = [_cell_text(cells[count]) for count in connections]
        rows.append([titles.get(server, server), *texts, number(cpu.cpu_us) if cpu else ""])
    rows += [[name, *texts, ""] for name, texts in _limit_rows(results, workload, workers, connections)]
    head = ["", *(f"{count} connection{'s' * (count > 1)}" for count in connections), "CPU µs/request"]
    return table(head, rows)


def _limit_rows(
    results: Results, workload: str, workers: int, connections: Sequence[int]
) -> Iterable[tuple[str, list[str]]]:
    """The in-process limits and nbserve's share of them; for several workers also that many loops side by side."""
    for processes in sorted({1, workers}):
        rate = results.limit(workload, workers, processes)
        if rate is None:
            continue
        times = workers if processes == 1 else 1
        name = (
            f"{times} x the limit of one loop"
            if times > 1
            else f"limit: {processes} loop{'s' * (processes > 1)} in-process"
        )
        ratios = [results.ratio_to_limit(Row(workload, workers, count), processes, times) for count in connections]
        yield f"{name} ({number(rate * times)})", [f"{ratio:.2f} x" if ratio else "" for ratio in ratios]


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return "not measured"
    if cell.errors:
        return f"**disqualified: {cell.errors} errors**"
    return f"{number(cell.requests_per_s)} ({number(cell.p50_ms)}/{number(cell.p99_ms)})"


def _extras(extras: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    groups = {"cold start s": "cold_s", "edit to new code s": "edit_s"}
    memory = extras.get("memory") or {}
    servers = dict.fromkeys([*(extras.get("cold_s") or {}), *(extras.get("edit_s") or {}), *memory])
    rows = []
    for server in servers:
        times = [_optional((extras.get(group) or {}).get(server)) for group in groups.values()]
        own = memory.get(server) or {}
        rows.append([titles.get(server, server), *times, _optional(own.get("pss_mb")), _optional(own.get("processes"))])
    parts = [table(["MLP, one worker", *groups, "PSS MB", "processes"], rows)]
    parts += [f"- {text}" for text in _nbserve_lines(extras)]
    return "\n\n".join([parts[0], "\n".join(parts[1:])]).strip()


def _nbserve_lines(extras: Mapping[str, Any]) -> Iterable[str]:
    if shared := extras.get("shared_weights_mb"):
        sizes = ", ".join(f"{workers} worker(s) {number(size)} MB" for workers, size in shared.items())
        yield f"1 GiB model, PSS of {SELF}: {sizes}."
    if idle := extras.get("idle"):
        yield f"Idle, no endpoint: server {number(idle['server_mb'])} MB, nursery {number(idle['nursery_mb'])} MB."
    if edit := extras.get("redeploy"):
        seconds = _optional(edit["seconds"]) or "no"
        yield f"New version under 200 requests/s: {seconds} s, {edit['failed']} of {edit['answered']} requests failed."
    if notebook := extras.get("notebook"):
        yield (
            f"In a notebook: `%%serve` to the first answer {_optional(notebook.get('first_answer_s'))} s, "
            f"re-run cell to the first new answer {_optional(notebook.get('rerun_s'))} s."
        )


def _failures(results: Results, titles: Mapping[str, str]) -> list[str]:
    lines = dict.fromkeys(
        f"- {titles.get(one['server'], one['server'])}, {one.get('workload', '')}: {one['reason']}"
        for one in results.failures
    )
    return ["### Not measured", "\n".join(lines)] if lines else []


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".strip()


def _optional(value: float | None) -> str:
    return "" if value is None else number(value)
