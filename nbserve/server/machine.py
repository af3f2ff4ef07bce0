"""What this machine gives us: usable cores, GPUs and NUMA nodes, read from the kernel without torch. Server process."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """`cores` may be less than the CPUs there are; `numa_nodes` holds the usable CPUs of each node."""

    cores: int = 1
    gpus: int = 0
    numa_nodes: tuple[tuple[int, ...], ...] = ()


def this_machine() -> Machine:
    cpus = usable_cpus()
    quota = cpu_quota()
    cores = len(cpus) if quota is None else min(len(cpus), max(1, int(quota)))
    return Machine(max(1, cores), count_gpus(os.environ), numa_nodes(cpus))


def usable_cpus() -> frozenset[int]:
    """CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The tightest CPU limit of our control group and those around it, in cores; None if there is none."""
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return min(quotas, default=None)


def count_gpus(environ: Mapping[str, str], root: Path = Path("/")) -> int:
    """NVIDIA GPUs that CUDA will show to us."""
    present = _gpus_present(root)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    return present if visible is None else min(present, _count_visible(visible))


def numa_nodes(cpus: frozenset[int], root: Path = Path("/")) -> tuple[tuple[int, ...], ...]:
    """Usable CPUs by NUMA node, without nodes that have none."""
    folders = (root / "sys/devices/system/node").glob("node[0-9]*")
    lists = (_read(folder / "cpulist") for folder in sorted(folders, key=lambda folder: int(folder.name[4:])))
    nodes = (tuple(sorted(parse_cpu_list(text) & cpus)) for text in lists if text is not None)
    return tuple(node for node in nodes if node)


def parse_cpu_list(text: str) -> frozenset[int]:
    """The kernel's `0-3,8` as numbers."""
    ranges = (part.partition("-") for part in text.strip().split(",") if part)
    return frozenset(cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1))


def _quotas_v2(root: Path) -> list[float]:
    quotas = []
    for folder in _group_folders(root, "", root / "sys/fs/cgroup"):
        quota, _, period = (_read(folder / "cpu.max") or "max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            quotas.append(int(quota) / int(period))
    return quotas


def _quotas_v1(root: Path) -> list[float]:
    quotas = []
    for folder in _group_folders(root, "cpu", root / "sys/fs/cgroup/cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return quotas


def _group_folders(root: Path, controller: str, mount: Path) -> list[Path]:
    """Our control group's folder and those above it; inside a container the mount itself is our group."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = mount / path.strip("/")
            return [mount, *(folder for folder in (group, *group.parents) if mount in folder.parents)]
    return [mount]


def _gpus_present(root: Path) -> int:
    listed = root / "proc/driver/nvidia/gpus"
    in_use = [path for path in (root / "dev").glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", path.name)]
    # A container sees all GPUs under /proc but has device files only for its own.
    return len(in_use) or (len(list(listed.iterdir())) if listed.is_dir() else 0)


def _count_visible(text: str) -> int:
    """As CUDA reads it: up to the first entry that names no device."""
    count = 0
    for name in (part.strip() for part in text.split(",")):
        if not (name.isdigit() or name.startswith(("GPU-", "MIG-"))):
            break
        count += 1
    return count


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
