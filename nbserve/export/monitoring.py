"""compose.yaml and what it starts beside the endpoint: Prometheus with alerts, Grafana with a dashboard. Pure."""

from __future__ import annotations

from nbserve.export import alerts, dashboard, kubernetes
from nbserve.export.plan import METRICS_PORT, UID, Files, Plan
from nbserve.export.texts import filled, yaml_text

_TEMPLATES = {
    "compose.yaml": "monitoring/compose.yaml",
    "monitoring/prometheus.yml": "monitoring/prometheus.yml",
    "monitoring/grafana/provisioning/datasources/prometheus.yaml": "monitoring/grafana/datasource.yaml",
    "monitoring/grafana/provisioning/dashboards/nbserve.yaml": "monitoring/grafana/dashboards.yaml",
}


def files(plan: Plan) -> Files:
    """compose.yaml and `monitoring/`, by their paths in the exported folder."""
    values = _values(plan)
    texts = {path: filled(template, **values) for path, template in _TEMPLATES.items()}
    return {
        **texts,
        "monitoring/alerts.yml": alerts.text(plan),
        "monitoring/grafana/dashboards/nbserve.json": dashboard.text(),
    }


def _values(plan: Plan) -> dict[str, object]:
    return {
        "name": yaml_text(kubernetes.name_of(plan)),
        # A dollar would begin a variable of compose's own.
        "image": yaml_text(plan.image).replace("$", "$$"),
        "uid": UID,
        "port": plan.port,
        "metrics_port": METRICS_PORT,
        "is_gpu": plan.is_gpu,
        "gpus": kubernetes.gpus(plan),
        "cpu": kubernetes.Cpu.of(plan).cores,
        "workers": plan.workers,
        "max_batch_size": plan.settings["max_batch_size"],
        "drain_s": kubernetes.drain_s(plan),
        "stop_s": kubernetes.stop_s(plan),
    }
