"""The rules by which Prometheus says that somebody should look, as a file of its own and for its operator. Pure."""

from __future__ import annotations

import json
from textwrap import indent as indented

from nbserve.export.plan import Plan
from nbserve.export.texts import filled, yaml_text

# The histogram's last bound is a minute: beyond it all are the same.
_SLOWEST_S = 30


def text(plan: Plan) -> str:
    """monitoring/alerts.yml."""
    queue_size = int(plan.settings["queue_size"])
    name = json.dumps(plan.name, ensure_ascii=False)
    return filled(
        "monitoring/alerts.yml",
        is_gone=yaml_text(f"absent(nbserve_endpoint_info{{endpoint={name}}})"),
        queue_size=queue_size,
        queue_limit=int(queue_size * 0.8),
        slow_s=f"{min(_SLOWEST_S, plan.settings['response_timeout_s'] / 2):g}",
    )


def groups(plan: Plan, indent: int) -> str:
    """The same from `groups:` on, further in by `indent`."""
    _, start, rules = text(plan).partition("groups:\n")
    return indented(start + rules, " " * indent)
