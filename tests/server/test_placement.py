"""Placement: decisions on made-up machines, and the files machines are read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError
from nbserve.server.machine import Machine, count_gpus, cpu_quota, numa_nodes, parse_cpu_list, this_machine
from nbserve.server.placement import DeviceSlots, Placement


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 2, 4), (8, 3, 2), (2, 4, 1), (1, 1, 1)])
def test_workers_share_the_cores(cores: int, workers: int, threads: int) -> None:
    assert Placement(Machine(cores)).threads(EndpointConfig(workers=workers)) == threads


def test_threads_can_be_set() -> None:
    assert Placement(Machine(8)).threads(EndpointConfig(workers=2, threads_per_worker=7)) == 7


@pytest.mark.parametrize(
    ("device", "gpus", "devices"),
    [
        ("auto", 0, ["cpu"] * 3),
        ("auto", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda:1", 2, ["cuda:1"] * 3),
        ("cpu", 2, ["cpu"] * 3),
        ("mps", 0, ["mps"] * 3),
    ],
)
def test_devices_go_round(device: str, gpus: int, devices: list[str]) -> None:
    placement, config = Placement(Machine(4, gpus)), EndpointConfig(device=device)
    assert [placement.device(config, index) for index in range(3)] == devices


@pytest.mark.parametrize(("device", "gpus", "said"), [("cuda", 0, "no NVIDIA GPU"), ("cuda:2", 2, "'cuda:1'")])
def test_a_gpu_that_is_not_there_is_a_clear_error(device: str, gpus: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Placement(Machine(4, gpus)).device(EndpointConfig(device=device), 0)


def test_workers_stay_within_a_numa_node_when_there_are_several() -> None:
    placement = Placement(Machine(4, 0, ((0, 1), (2, 3))))
    config = EndpointConfig(workers=2)
    assert [placement.cpus(config, index) for index in range(3)] == [[0, 1], [2, 3], [0, 1]]
    assert placement.cpus(EndpointConfig(workers=1), 0) is None
    assert Placement(Machine(4, 0, ((0, 1, 2, 3),))).cpus(config, 0) is None


def test_a_gpu_runs_one_batch_at_a_time_and_the_cpu_one_per_core() -> None:
    slots = DeviceSlots(cores=2)
    slots.acquire("cuda:0")
    assert not slots.has_room("cuda:0")
    assert slots.has_room("cuda:1")
    slots.acquire("cpu")
    assert slots.has_room("cpu")
    slots.acquire("cpu")
    assert not slots.has_room("cpu")
    slots.release("cpu")
    assert slots.has_room("cpu")
    assert slots.in_flight("cpu") == 1


def test_who_found_no_room_is_called_once_when_there_is() -> None:
    slots, called = DeviceSlots(cores=0), []
    waiting = [lambda: called.append("a"), lambda: called.append("b")]
    slots.acquire("cpu")
    for on_room in (*waiting, *waiting):
        assert not slots.has_room("cpu", on_room)
    slots.release("cpu")
    assert called == ["a", "b"]
    slots.acquire("cpu")
    slots.release("cpu")
    assert called == ["a", "b"]


def test_releasing_what_was_not_acquired_is_an_error() -> None:
    with pytest.raises(ValueError, match="no batch is in flight"):
        DeviceSlots(1).release("cpu")


def test_this_machine_can_be_read() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert Placement(machine).cores == machine.cores


def test_the_cpu_quota_of_a_container_counts(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"})
    assert cpu_quota(root) == 1.5


def test_the_tightest_quota_of_the_groups_above_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/user/me/task\n",
        "sys/fs/cgroup/user/cpu.max": "400000 100000\n",
        "sys/fs/cgroup/user/me/cpu.max": "200000 100000\n",
        "sys/fs/cgroup/user/me/task/cpu.max": "max 100000\n",
    }
    assert cpu_quota(write(tmp_path, files)) == 2.0


def test_old_control_groups_are_understood(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us": "100000\n",
    }
    assert cpu_quota(write(tmp_path, files)) == 3.0


def test_no_quota_is_none(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert cpu_quota(write(tmp_path, {"sys/fs/cgroup/cpu.max": "max 100000\n"})) is None


def test_gpus_are_counted_without_torch(tmp_path: Path) -> None:
    assert count_gpus({}, tmp_path) == 0
    write(tmp_path, {f"proc/driver/nvidia/gpus/0000:0{n}:00.0/information": "" for n in range(4)})
    assert count_gpus({}, tmp_path) == 4
    write(tmp_path, {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""})
    assert count_gpus({}, tmp_path) == 2


@pytest.mark.parametrize(
    ("visible", "gpus"), [("", 0), ("-1", 0), ("1", 1), ("0,1", 2), ("0,-1,1", 1), ("GPU-8932f937", 1), ("0,1,2,3", 3)]
)
def test_hidden_gpus_do_not_count(tmp_path: Path, visible: str, gpus: int) -> None:
    write(tmp_path, {f"dev/nvidia{n}": "" for n in range(3)})
    assert count_gpus({"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == gpus


def test_numa_nodes_keep_only_cpus_we_may_use(tmp_path: Path) -> None:
    base = "sys/devices/system/node"
    lists = {0: "0-1,4-5\n", 1: "2-3\n", 2: "8-9\n", 10: "\n"}
    write(tmp_path, {f"{base}/node{node}/cpulist": text for node, text in lists.items()})
    assert numa_nodes(frozenset({0, 1, 2, 4}), tmp_path) == ((0, 1, 4), (2,))


def test_cpu_lists_are_parsed() -> None:
    assert parse_cpu_list("0-2,7,9-10\n") == {0, 1, 2, 7, 9, 10}
    assert parse_cpu_list("\n") == frozenset()
