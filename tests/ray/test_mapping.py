"""What the settings of an endpoint are on Ray Serve. Pure."""

from __future__ import annotations

import pytest

from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError, RayError
from nbserve.ray import mapping
from nbserve.ray.options import RayOptions


def test_there_are_as_many_replicas_as_workers_and_each_has_its_threads_as_cpus() -> None:
    options = mapping.deployment_options(EndpointConfig(workers=3, threads_per_worker=2, queue_size=50))
    assert options["num_replicas"] == 3
    assert options["ray_actor_options"] == {"num_cpus": 2.0}
    assert options["max_queued_requests"] == 50
    assert "autoscaling_config" not in options


def test_a_replica_gets_one_batch_to_run_and_one_to_gather() -> None:
    assert mapping.max_ongoing(EndpointConfig(max_batch_size=32)) == 64
    assert mapping.max_ongoing(EndpointConfig(max_batch_size=1)) == 8


def test_only_a_window_makes_ray_wait_for_a_batch_to_fill() -> None:
    config = EndpointConfig(max_batch_delay_ms=20.0, policy="window")
    assert mapping.batch_wait_s(config) == pytest.approx(0.02)
    assert mapping.batch_wait_s(config.changed({"policy": "adaptive"})) == 0.0


@pytest.mark.parametrize(("device", "gpus"), [("cpu", None), ("auto", None), ("cuda", 1.0), ("cuda:3", 1.0)])
def test_only_a_device_that_says_cuda_reserves_a_gpu(device: str, gpus: float | None) -> None:
    reserved = mapping.deployment_options(EndpointConfig(device=device))["ray_actor_options"]
    assert reserved.get("num_gpus") == gpus


def test_a_drain_lasts_as_long_as_a_request_may_take() -> None:
    assert mapping.deployment_options(EndpointConfig(response_timeout_s=90.5))["graceful_shutdown_timeout_s"] == 91
    assert mapping.deployment_options(EndpointConfig(response_timeout_s=1))["graceful_shutdown_timeout_s"] == 20


def test_ray_scales_by_what_a_full_batch_is() -> None:
    options = RayOptions(min_replicas=2, max_replicas=6).deployment_options(EndpointConfig(max_batch_size=16))
    assert "num_replicas" not in options
    assert options["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 6, "target_ongoing_requests": 16}


def test_one_end_of_a_range_is_enough() -> None:
    options = RayOptions(min_replicas=9).deployment_options(EndpointConfig())
    assert (options["autoscaling_config"]["min_replicas"], options["autoscaling_config"]["max_replicas"]) == (9, 9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (RayOptions(replicas=2, max_replicas=3), "not both"),
        (RayOptions(min_replicas=3, max_replicas=2), "from 3 to 2"),
        (RayOptions(max_replicas=0), "makes no sense"),
        (RayOptions(replicas=0), "at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: RayOptions, said: str) -> None:
    with pytest.raises(RayError, match=said):
        options.deployment_options(EndpointConfig())


def test_user_config_is_laid_over_what_a_replica_started_with() -> None:
    start = EndpointConfig(max_batch_size=4, dtype="bfloat16")
    live = mapping.live_config(start, mapping.user_config(start.changed({"max_batch_size": 9})))
    assert (live.max_batch_size, live.dtype) == (9, "bfloat16")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "float16"}, "dtype needs new replicas"),
        ({"max_batch": 2}, "did you mean max_batch_size"),
        ({"max_batch_size": 0}, "least"),
    ],
)
def test_what_a_running_replica_cannot_take_over_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        mapping.live_config(EndpointConfig(), changes)
