"""Writes TorchServe's archive and configuration into the working directory, then becomes TorchServe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.servers.settings import Settings, free_port

HANDLER = Path(__file__).with_name("torchserve_handler.py")


def write_archive(store: Path, version: str) -> Path:
    """The model archive `bench-VERSION.mar` in the model store."""
    store.mkdir(exist_ok=True)
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    name = f"bench-{version}"
    command = [archiver, "--model-name", name, "--version", version, "--handler", HANDLER, "--export-path", store]
    subprocess.run([*map(str, command), "--force"], check=True)
    return store / f"{name}.mar"


def write_configuration(settings: Settings, archive: Path) -> Path:
    model = {
        "defaultVersion": True,
        "marName": archive.name,
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.max_batch_size,
        "maxBatchDelay": max(1, round(settings.window_ms)),
        "responseTimeout": 60,
    }
    lines = [
        f"inference_address=http://127.0.0.1:{settings.port}",
        f"management_address=http://127.0.0.1:{free_port()}",
        f"metrics_address=http://127.0.0.1:{free_port()}",
        f"grpc_inference_port={free_port()}",
        f"grpc_management_port={free_port()}",
        f"model_store={archive.parent}",
        f"load_models=bench={archive.name}",
        "models=" + json.dumps({"bench": {"1.0": model}}),
        "job_queue_size=1024",
        "default_response_timeout=60",
        "disable_system_metrics=true",
        "vmargs=-XX:-UsePerfData",
        "decode_input_request=false",
    ]
    configuration = Path("config.properties").resolve()
    configuration.write_text("\n".join(lines) + "\n")
    return configuration


def main() -> None:
    settings = Settings.from_environment()
    configuration = write_configuration(settings, write_archive(Path("store").resolve(), "1.0"))
    os.environ["TEMP"] = str(Path.cwd())
    torchserve = str(Path(sys.executable).with_name("torchserve"))
    flags = ["--start", "--foreground", "--disable-token-auth", "--ncs", "--ts-config", str(configuration)]
    os.execv(torchserve, [torchserve, *flags, "--log-config", _quiet_log()])


def _quiet_log() -> str:
    """TorchServe logs every request at INFO by default, which costs it throughput."""
    log = Path("log4j2.xml").resolve()
    log.write_text(
        '<?xml version="1.0"?><Configuration><Appenders><Console name="C"><PatternLayout pattern="%d %p %c %m%n"/>'
        '</Console></Appenders><Loggers><Root level="warn"><AppenderRef ref="C"/></Root></Loggers></Configuration>'
    )
    return str(log)


if __name__ == "__main__":
    main()
