"""Take the demo's notebook to a running, verified container with one command, and tell each step on the terminal.

KEEP=1 leaves the container running. HOST_NETWORK=1 runs it in this machine's network, where there is no other,
as in CI and in containers.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from nbserve.bundle.bundle import Bundle, read_golden

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
OUT = ROOT / "demo" / "ship"
IMAGE, CONTAINER = "nbserve-quickstart:1", "nbserve-quickstart"
NBSERVE = (sys.executable, "-m", "nbserve")
# Nothing to write to but /tmp, and no rights.
HARDENED = ("--read-only", "--tmpfs=/tmp:exec,mode=1777", "--cap-drop=all", "--security-opt=no-new-privileges")
START_LIMIT_S = 120


def main() -> int:
    engine = find_engine()
    if engine is None:
        tell("neither docker nor podman works here, so no container can run; install one of them")
        return 1
    builder = {} if "NBSERVE_BUILDER" in os.environ else {"NBSERVE_BUILDER": engine}
    tell(f"[1/4] {NOTEBOOK.name} -> {OUT.relative_to(ROOT)} -> image {IMAGE}, with {engine}")
    run([*NBSERVE, "export", str(NOTEBOOK), str(OUT), "--build", IMAGE], {**os.environ, **builder})
    port = free_port()
    tell(f"[2/4] run it, as nobody, on a read-only disk: http://127.0.0.1:{port}")
    subprocess.run([engine, "rm", "--force", CONTAINER], capture_output=True, check=False)
    run([engine, "run", "--detach", "--name", CONTAINER, *HARDENED, *network(port), IMAGE])
    try:
        show(engine, port)
    except BaseException:
        remove(engine)
        raise
    if os.environ.get("KEEP"):
        tell(f"\nit goes on running; this ends it:\n  {prefix()}{engine} rm --force {CONTAINER}")
    else:
        remove(engine)
        tell("\nstopped and removed; KEEP=1 leaves it running")
    return 0


def show(engine: str, port: int) -> None:
    url, golden = f"http://127.0.0.1:{port}", OUT / "golden.jsonl"
    tell("[3/4] ask it what the notebook asked, and compare the answers")
    run([*NBSERVE, "verify", url, str(golden), "--wait", str(START_LIMIT_S)])
    tell("[4/4] ask it as anybody would")
    recorded = read_golden(golden)[0]
    place = f"{url}/predictions/{Bundle.read(OUT / 'bundle').name}"
    run(["curl", "-sS", place, "-H", f"Content-Type: {recorded.content_type}", "-d", recorded.request_body.decode()])
    size = subprocess.check_output([engine, "image", "inspect", "--format", "{{.Size}}", IMAGE])
    tell(f"\nimage       {IMAGE}, {int(size) / 1e9:.2f} GB\nfolder      {OUT.relative_to(ROOT)}")


def prefix() -> str:
    """Where podman keeps its containers, if somebody says so."""
    named = [
        f"{name}={os.environ[name]} " for name in ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF") if name in os.environ
    ]
    return "".join(named)


def find_engine() -> str | None:
    """What runs containers here: the first that answers."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def network(port: int) -> list[str]:
    if os.environ.get("HOST_NETWORK"):
        settings = {"NBSERVE_HOST": "127.0.0.1", "NBSERVE_PORT": port, "NBSERVE_METRICS_PORT": -1}
        # Podman leaves health checks to systemd, which is not there either.
        return ["--no-healthcheck", "--network=host", *(f"--env={name}={value}" for name, value in settings.items())]
    return [f"--publish=127.0.0.1:{port}:8080"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remove(engine: str) -> None:
    """SIGTERM first: what it is answering it answers."""
    subprocess.run([engine, "stop", CONTAINER], capture_output=True, check=False)
    subprocess.run([engine, "rm", "--force", CONTAINER], capture_output=True, check=False)


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """A step, with its command line to copy and its lines below."""
    began = time.monotonic()
    tell(f"      $ {shlex.join(command).replace(f'{sys.executable} -m nbserve', 'nbserve').replace(f'{ROOT}/', '')}")
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            tell(f"        {line.rstrip()}")
    if process.returncode:
        raise SystemExit(f"that step failed with exit code {process.returncode}")
    tell(f"        ({time.monotonic() - began:.1f} s)")


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
