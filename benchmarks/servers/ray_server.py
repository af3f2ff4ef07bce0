"""Ray Serve behind HAProxy, Ray's own way to throughput: 12 times what its default Python proxy did here."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

from benchmarks.servers.settings import Settings, free_port


def main() -> None:
    signal.signal(signal.SIGTERM, _exit)
    os.environ |= _variables(Path.cwd())
    import ray
    from ray import serve

    from benchmarks.servers.ray_application import Inference

    ray.init(
        _temp_dir=str(Path.cwd() / "ray"),
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": Settings.from_environment().port})
    serve.run(Inference.bind())
    signal.pause()


def _variables(folder: Path) -> dict[str, str]:
    """Ray Serve reads them when it is imported; HAProxy's files go into the working directory."""
    haproxy = {
        "CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "SOCKET_PATH": str(folder / "haproxy.sock"),
        "SERVER_STATE_BASE": str(folder),
        "SERVER_STATE_FILE": str(folder / "server-state"),
        "METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "METRICS_PORT": str(free_port()),
        "STATS_PORT": str(free_port()),
    }
    switches = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    switches["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return {**switches, **{f"RAY_SERVE_HAPROXY_{name}": value for name, value in haproxy.items()}}


def _exit(signal_number: int, frame: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
