"""The exported `k8s/` folder: the endpoint as pods, their number by the length of their queues, and KServe. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

from nbserve.export import alerts
from nbserve.export.plan import METRICS_PORT, UID, Files, Plan
from nbserve.export.texts import filled, yaml_text

FILES = (
    "deployment.yaml",
    "service.yaml",
    "hpa.yaml",
    "pdb.yaml",
    "networkpolicy.yaml",
    "kustomization.yaml",
    "kserve/inferenceservice.yaml",
    "monitoring/podmonitor.yaml",
    "monitoring/prometheusrule.yaml",
    "monitoring/prometheus-adapter.yaml",
)

# KServe appends `-predictor-` and a namespace, and the whole is one DNS label.
_LONGEST_NAME = 40
_MIB = 1024 * 1024
# Load balancers take about this long to strike a pod off.
_PRE_STOP_S = 5
_END_WORKERS_S = 10
_IMPORTS_S = 60
_START_PERIOD_S = 2


def files(plan: Plan) -> Files:
    """Everything in `k8s/`, by its path in the exported folder."""
    values = _values(plan)
    return {f"k8s/{name}": filled(f"kubernetes/{name}", **values) for name in FILES}


def name_of(plan: Plan) -> str:
    """The slug as a Service may be called: it begins with a letter, and leaves room for what KServe appends."""
    name = plan.slug if plan.slug[:1].isalpha() else f"endpoint-{plan.slug}"
    if len(name) <= _LONGEST_NAME:
        return name
    mark = hashlib.sha256(plan.name.encode()).hexdigest()[:6]
    return f"{name[: _LONGEST_NAME - 7].rstrip('-')}-{mark}"


def drain_s(plan: Plan) -> int:
    """How long a server that stops waits for the requests it has: as long as one of them may take."""
    return max(30, math.ceil(float(plan.settings["response_timeout_s"])))


def stop_s(plan: Plan) -> int:
    """Seconds from SIGTERM to the end, at most."""
    return drain_s(plan) + _END_WORKERS_S


def gpus(plan: Plan) -> int:
    """As many as the setting `device` counts up to; workers go round them."""
    _, _, number = plan.settings["device"].partition(":")
    return int(number) + 1 if number else 1


@dataclass(frozen=True)
class Cpu:
    """Cores for a pod, and why so many."""

    cores: int
    why: str

    @classmethod
    def of(cls, plan: Plan) -> Cpu:
        threads, workers = int(plan.settings["threads_per_worker"]), _count(plan.workers, "worker")
        if threads:
            each = _count(threads, "thread")
            return cls(plan.workers * threads + 1, f"{workers} of {each} (threads_per_worker), and one for the server")
        if plan.is_gpu:
            return cls(plan.workers + 1, f"one for each of {workers} to keep the GPU busy, and one for the server")
        return cls(
            2 * plan.workers, f"two for each of {workers}, whose threads they become; more make each answer faster"
        )


@dataclass(frozen=True)
class Memory:
    """MiB for a pod, and why so much. Workers on CPUs share the pages of their weights; those on GPUs stage them."""

    mib: int
    why: str

    @classmethod
    def of(cls, plan: Plan) -> Memory:
        model = math.ceil(plan.model_bytes / _MIB)
        each = 2048 if plan.is_gpu else 512
        # What casts or compiles a module makes weights of its own.
        has_copies = bool(plan.settings["dtype"] or plan.settings["compile"] or plan.settings["channels_last"])
        copies = plan.workers if has_copies else 1
        total = 512 + plan.workers * each + (1 + copies) * model
        why = f"512 MiB for the server, {each} for each of {_count(plan.workers, 'worker')}, {1 + copies} x the model"
        return cls(math.ceil(total / 256) * 256, why)


@dataclass(frozen=True)
class Image:
    """A reference in its parts; tag and digest may be missing."""

    name: str
    tag: str
    digest: str

    @classmethod
    def of(cls, reference: str) -> Image:
        whole, _, digest = reference.partition("@")
        # A colon before the last slash is a registry's port.
        found = re.fullmatch(r"(.*?)(?::([^/:]*))?", whole, re.DOTALL)
        name, tag = found.groups() if found else (whole, None)
        return cls(name, tag or "", digest)


def _values(plan: Plan) -> dict[str, object]:
    cpu, memory, image = Cpu.of(plan), Memory.of(plan), Image.of(plan.image)
    start_timeout_s = math.ceil(plan.settings["start_timeout_s"])
    start_failures = math.ceil((start_timeout_s + _IMPORTS_S) / _START_PERIOD_S)
    queue_target, queue_why = _queue_target(plan)
    compiles = bool(plan.settings["compile"])
    return {
        "name": yaml_text(name_of(plan)),
        "version": yaml_text(_label_value(plan.version)),
        "description": yaml_text(f"nbserve endpoint {plan.name}, version {plan.version}"),
        "image": yaml_text(plan.image),
        "image_name": yaml_text(image.name),
        "image_tag": yaml_text(image.tag) if image.tag else "",
        "image_digest": yaml_text(image.digest) if image.digest else "",
        "uid": UID,
        "port": plan.port,
        "metrics_port": METRICS_PORT,
        "is_gpu": plan.is_gpu,
        "gpus": gpus(plan),
        "workers": plan.workers,
        "max_batch_size": plan.settings["max_batch_size"],
        "cpu": cpu.cores,
        "cpu_why": cpu.why,
        "memory": f"{memory.mib}Mi",
        "memory_why": memory.why,
        "tmp_size": f"{math.ceil((1024 + compiles * (1024 + 2 * plan.model_bytes / _MIB)) / 1024)}Gi",
        "start_timeout_s": start_timeout_s,
        "start_failures": start_failures,
        "progress_s": start_failures * _START_PERIOD_S + 300,
        "response_timeout_s": f"{plan.settings['response_timeout_s']:g}",
        "proxy_timeout_s": drain_s(plan) + 5,
        "drain_s": drain_s(plan),
        "pre_stop_s": _PRE_STOP_S,
        "grace_s": _PRE_STOP_S + stop_s(plan),
        "queue_target": queue_target,
        "queue_why": queue_why,
        "groups": alerts.groups(plan, indent=2),
        "min_replicas": 1 if plan.is_gpu else 2,
        "max_replicas": 4 if plan.is_gpu else 10,
    }


def _queue_target(plan: Plan) -> tuple[int, str]:
    """How many may wait per pod, on average, before there are more pods; a queue that fills up must get there."""
    batch, queue = int(plan.settings["max_batch_size"]), int(plan.settings["queue_size"])
    half_batches, half_queue = plan.workers * batch / 2, queue / 2
    if half_batches <= half_queue:
        return max(1, int(half_batches)), f"half a batch of {batch} for each of {_count(plan.workers, 'worker')}"
    return max(1, int(half_queue)), f"half of queue_size, which is {queue}"


def _label_value(text: str) -> str:
    """As near to the text as a label's value may be."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("._-")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
