"""The Grafana dashboard of nbserve's metrics, as a table of panels. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _STAT_HEIGHT, _GRAPH_HEIGHT = 24, 4, 8
# Green is an answer, amber the client's mistake, red ours.
_STATUS_COLOURS = {"2..": "green", "4..": "orange", "5..": "red"}


@dataclass(frozen=True)
class Query:
    """What Prometheus is asked, and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel: `says` is the text behind its (i)."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    is_stacked: bool = False

    @property
    def is_small(self) -> bool:
        return self.kind == "stat"


def _of(metric: str, matcher: str = "") -> str:
    return f'{metric}{{endpoint=~"$endpoint"{matcher and ","}{matcher}}}'


def _rate(metric: str, matcher: str = "") -> str:
    return f"rate({_of(metric, matcher)}[$__rate_interval])"


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) ({_rate(f'{metric}_bucket')}))"


_LATENCY = "nbserve_request_latency_seconds"
_ERRORS, _FAILURES, _SERVING = 'status=~"[45].."', 'status=~"5.."', 'state=~"READY|BUSY"'
# Without a failure there is no series: that is none, not unknown.
_FAILED = f"(sum({_rate('nbserve_requests_total', _FAILURES)}) or vector(0))"

PANELS = (
    Panel(
        "Answers per second",
        "All answers, refused and failed ones included.",
        (Query(f"sum({_rate('nbserve_requests_total')})"),),
        "reqps",
        "stat",
    ),
    Panel(
        "Latency, p99",
        "99 of 100 answers took no longer, from a request's first byte to its answer.",
        (Query(_quantile(0.99, _LATENCY)),),
        "s",
        "stat",
    ),
    Panel(
        "Failed",
        "Share of answers with a status of 500 or more.",
        (Query(f"{_FAILED} / sum({_rate('nbserve_requests_total')})"),),
        "percentunit",
        "stat",
    ),
    Panel(
        "Workers that serve",
        "READY or BUSY.",
        (Query(f"sum({_of('nbserve_workers', _SERVING)})"),),
        "none",
        "stat",
    ),
    Panel(
        "Throughput by status",
        "503: refused, as the queue was full or no worker was ready. 504: response_timeout_s was over.",
        (Query(f"sum by (status) ({_rate('nbserve_requests_total')})", "{{status}}"),),
        "reqps",
        is_stacked=True,
    ),
    Panel(
        "Latency",
        "From a request's first byte to its answer, waiting included. Exact to the bucket of the histogram.",
        tuple(Query(_quantile(share, _LATENCY), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)),
        "s",
    ),
    Panel(
        "Queue",
        "Requests that wait for a worker. It is what the autoscaler of k8s/hpa.yaml looks at.",
        (Query(f"sum by (endpoint) ({_of('nbserve_queue_length')})", "{{endpoint}}"),),
    ),
    Panel(
        "Time in the queue",
        "From queueing a request to sending it to a worker: what more workers or more pods would save.",
        tuple(Query(_quantile(share, "nbserve_queue_seconds"), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)),
        "s",
    ),
    Panel(
        "Batch sizes",
        "How many batches had how many requests; a row counts what is more than the row below it.",
        (Query(f"sum by (le) (increase({_of('nbserve_batch_size_bucket')}[$__rate_interval]))", "{{le}}"),),
        kind="heatmap",
    ),
    Panel(
        "Mean batch size",
        "Near 1 under load: nothing is gained by batching. Near max_batch_size: a larger one may answer more.",
        (
            Query(
                f"sum by (endpoint) ({_rate('nbserve_batch_size_sum')})"
                f" / sum by (endpoint) ({_rate('nbserve_batch_size_count')})",
                "{{endpoint}}",
            ),
        ),
    ),
    Panel(
        "Stages of a batch",
        "Mean time of a batch in each stage, from being sent to a worker to its last answer.",
        (
            Query(
                f"sum by (stage) ({_rate('nbserve_stage_seconds_sum')})"
                f" / sum by (stage) ({_rate('nbserve_stage_seconds_count')})",
                "{{stage}}",
            ),
        ),
        "s",
        is_stacked=True,
    ),
    Panel(
        "Errors",
        "4xx: the clients' mistakes. 5xx: the handler failed, its worker died, time was over, or the queue was full.",
        (Query(f"sum by (status) ({_rate('nbserve_requests_total', _ERRORS)})", "{{status}}"),),
        "reqps",
    ),
    Panel(
        "Workers by state",
        "DEAD for long: a worker that cannot start; the log has the traceback.",
        (Query(f"sum by (state) ({_of('nbserve_workers')})", "{{state}}"),),
        "none",
        is_stacked=True,
    ),
    Panel(
        "Worker restarts",
        "Workers that died or were ended, and came back. Often out of memory: see the log.",
        (
            Query(
                f"sum by (endpoint) (increase({_of('nbserve_worker_restarts_total')}[5m]))", "{{endpoint}}, 5 minutes"
            ),
        ),
        "none",
    ),
    Panel(
        "CPU",
        "Cores used. The server process is at its limit at 1.",
        (
            Query(
                f"sum by (instance, endpoint, worker) ({_rate('nbserve_worker_cpu_seconds_total')})",
                "{{instance}} {{endpoint}} {{worker}}",
            ),
            Query("rate(nbserve_server_cpu_seconds_total[$__rate_interval])", "{{instance}} server"),
        ),
        "none",
    ),
    Panel(
        "Memory",
        "Resident memory. Workers share pages, the weights' above all, so that their sum is more than what is used.",
        (
            Query(
                f"sum by (instance, endpoint, worker) ({_of('nbserve_worker_rss_bytes')})",
                "{{instance}} {{endpoint}} {{worker}}",
            ),
            Query("nbserve_server_rss_bytes", "{{instance}} server"),
        ),
        "bytes",
    ),
    Panel(
        "Open connections",
        "Of clients, by server. Those that keep one open stay with their server.",
        (Query("nbserve_open_connections", "{{instance}}"),),
    ),
    Panel(
        "Versions",
        "What each server serves: two while a new one rolls out.",
        (Query(f"count by (endpoint, version) ({_of('nbserve_endpoint_info')})", "{{endpoint}} {{version}}"),),
        "none",
        is_stacked=True,
    ),
)


def text() -> str:
    """The dashboard as Grafana imports it."""
    return json.dumps(_dashboard(), indent=2) + "\n"


def _dashboard() -> dict[str, Any]:
    return {
        "uid": "nbserve",
        "title": "nbserve",
        "description": "Endpoints of nbserve: answers, times, queues, batches, workers.",
        "tags": ["nbserve"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        # A crosshair over all panels at once.
        "graphTooltip": 1,
        "templating": {"list": [_source_choice(), _endpoint_choice()]},
        "panels": list(_placed()),
    }


def _source_choice() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


def _endpoint_choice() -> dict[str, Any]:
    query = "label_values(nbserve_endpoint_info, endpoint)"
    return {
        "name": "endpoint",
        "label": "Endpoint",
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "endpoint"},
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        # Asked anew with each change of the time range.
        "refresh": 2,
        "sort": 1,
    }


def _placed() -> Iterator[dict[str, Any]]:
    """The panels from left to right and from top to bottom: four small ones in a row, two others."""
    x = y = 0
    for number, panel in enumerate(PANELS, start=1):
        width, height = (6, _STAT_HEIGHT) if panel.is_small else (12, _GRAPH_HEIGHT)
        yield {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **_panel(panel)}
        x += width
        if x == _COLUMNS:
            x, y = 0, y + height


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "targets": [_target(query, chr(ord("A") + index), panel.kind) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind],
    }


def _target(query: Query, ref: str, kind: str) -> dict[str, Any]:
    shape = {"format": "heatmap"} if kind == "heatmap" else {"format": "time_series"}
    return {"refId": ref, "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend, **shape}


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.is_stacked else "none", "group": "A"}
        defaults["custom"] = {
            "fillOpacity": 40 if panel.is_stacked else 10,
            "showPoints": "never",
            "stacking": stacking,
        }
    return defaults


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    if not any("by (status)" in query.expr for query in panel.queries):
        return []
    return [
        {
            "matcher": {"id": "byRegexp", "options": f"/^{status}$/"},
            "properties": [{"id": "color", "value": {"mode": "shades", "fixedColor": colour}}],
        }
        for status, colour in _STATUS_COLOURS.items()
    ]


_OPTIONS: Mapping[str, dict[str, Any]] = {
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "value"},
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 32},
        "yAxis": {"axisPlacement": "left", "unit": "short"},
        "tooltip": {"mode": "single"},
        "legend": {"show": True},
    },
}
