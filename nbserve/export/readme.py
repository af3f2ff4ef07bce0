"""The README.md of an export: how to build, run and verify it, and what is in it. Pure."""

from __future__ import annotations

import shlex

from nbserve.export import docker
from nbserve.export.folder import size_text
from nbserve.export.plan import BUNDLE, METRICS_PORT, UID, Files, Plan
from nbserve.export.texts import filled

# Those that one changes most, whether they were tuned or not.
_SHOWN = ("workers", "max_batch_size", "queue_size", "response_timeout_s", "device")


def files(plan: Plan) -> Files:
    compiles = plan.settings["compile"] == "inductor"
    return {
        "README.md": filled(
            "README.md",
            name=plan.name,
            version=plan.version,
            image=plan.image,
            commands="\n".join(commands(plan)),
            golden=_golden(plan.golden_count),
            port=plan.port,
            metrics_port=METRICS_PORT,
            uid=UID,
            ports=_ports(plan),
            model_size=size_text(plan.model_bytes),
            torch=plan.torch,
            index=f"<{plan.index_url}>" if plan.index_url else "the index that pip is set to",
            wheels=plan.wheels,
            settings=_settings(plan),
            compiles=compiles,
            cache=compiles and plan.has_cache,
            nocache=compiles and not plan.has_cache,
            base=plan.base,
            small=docker.base(plan.python),
            warms=compiles and bool(plan.golden_count),
            bundle=BUNDLE,
        )
    }


def commands(plan: Plan, folder: str = ".") -> tuple[str, ...]:
    """What builds the image, runs it and verifies it, as seen from where the exported folder is `folder`."""
    golden = "golden.jsonl" if folder == "." else f"{folder.rstrip('/')}/golden.jsonl"
    image = shlex.quote(plan.image)
    # What a compiler made is loaded from there, which Docker forbids unless it is told.
    writable = "/tmp:exec" if plan.settings["compile"] else "/tmp"
    gpu = " --gpus all" if plan.is_gpu else ""
    dtype = f" --dtype {plan.settings['dtype']}" if plan.settings["dtype"] else ""
    words = dtype + "".join(f" --ignore {shlex.quote(place)}" for place in plan.ignore)
    ports = " ".join(f"-p 127.0.0.1:{port}:{port}" for port in (plan.port, METRICS_PORT))
    return (
        f"docker build -t {image} {shlex.quote(folder)}",
        f"docker run --rm --read-only --tmpfs {writable} --cap-drop ALL{gpu} {ports} {image}",
        f"nbserve verify http://127.0.0.1:{plan.port}/predictions/{plan.name} {shlex.quote(golden)}{words} --wait 60",
    )[: 3 if plan.golden_count else 2]


def _golden(count: int) -> str:
    return {0: "", 1: "one request"}.get(count, f"{count} requests")


def _ports(plan: Plan) -> str:
    return (
        f"Port {plan.port} is for requests, {METRICS_PORT} for Prometheus (`GET /metrics`). Neither asks who calls: "
        "before you\npublish them beyond loopback, put something in front that does."
    )


def _settings(plan: Plan) -> str:
    shown = {name: plan.settings[name] for name in _SHOWN} | dict(plan.tuned)
    lines = [f"| `NBSERVE_{name.upper()}` | {_value(value)} |" for name, value in shown.items()]
    return "\n".join(lines)


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "(empty)"
