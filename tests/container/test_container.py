"""The quickstart notebook as an image and as a running container, for real: built, looked into, asked, ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nbserve.export import build
from tests.container import standin
from tests.container.clients import Load, dashboard_queries, listeners, post, scrape_config, status_of
from tests.container.conftest import NOTEBOOK, TAG, Shipped, exported
from tests.container.containers import Container, Engine
from tests.export.test_prometheus import asking, free_ports, has_data, installed, running, scraping

# The first test waits for the build.
pytestmark = [pytest.mark.container, pytest.mark.process, pytest.mark.timeout(900)]

ENOUGH_ANSWERS = 400
START_LIMIT_S = 60
MOST_BYTES = 1_400_000_000
BUILD_TOOLS = {"gcc", "cc", "g++", "c++", "ld", "as", "make", "cmake", "git", "cargo", "rustc", "node", "npm"}
TEXT_BYTES = 1_000_000
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def root(engine: Engine, shipped: Shipped) -> Iterator[Path]:
    """The image's files, as a folder of this machine."""
    folder = engine("image", "mount", shipped.image).stdout.strip()
    yield Path(folder)
    engine("image", "unmount", shipped.image)


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(root) for name in names]


def test_an_image_is_told_as_it_is_built_and_takes_no_more_than_it_may(shipped: Shipped) -> None:
    said = [json.loads(line)["text"] for line in shipped.progress]
    assert any("buildah builds" in line for line in said)
    assert any(re.match(r"\d+/\d+: COPY", line) for line in said)
    size = shipped.exported["image_bytes"]
    print(f"{shipped.image}: {size / 1e9:.2f} GB, {shipped.seconds:.0f} s from the notebook to the image")
    assert 300_000_000 < size <= MOST_BYTES


def test_a_second_export_is_the_same_to_the_byte_and_its_image_comes_from_what_is_there(
    engine: Engine, shipped: Shipped, tmp_path: Path
) -> None:
    before, began = layers(engine, shipped.image), time.monotonic()
    again = json.loads(exported(engine, tmp_path / "again", "--build", TAG)[-1])["exports"][0]
    print(f"{time.monotonic() - began:.0f} s from the notebook to the image when nothing has changed")
    first, second = (
        {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        for folder in (shipped.folder, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name].read_bytes() != second[name].read_bytes()] == []
    assert [name for name in first if first[name].stat().st_mode != second[name].stat().st_mode] == []
    assert again["image_bytes"] == shipped.exported["image_bytes"]
    assert layers(engine, again["image"]) == before


def test_an_image_holds_the_bundle_and_its_environment_alone(root: Path, files: list[Path]) -> None:
    own = {path.relative_to(root).parts[2] for path in files if path.is_relative_to(root / "opt" / "nbserve")}
    assert own == {"bundle", "venv"}
    packages = root / "opt" / "nbserve" / "venv"
    names = {path.name for path in files if not path.is_relative_to(packages)}
    assert {"nbserve.toml", "app.py"} <= names
    assert names & {"golden.jsonl", "requirements.lock", "Dockerfile"} == set()


def test_an_image_has_no_build_tools_and_no_cuda(files: list[Path]) -> None:
    programs = {path.name for path in files if path.parent.name in ("bin", "sbin")}
    assert programs & BUILD_TOOLS == set()
    cuda = re.compile(
        r"/site-packages/(nvidia|triton|cuda)|/lib(cublas|cudart|cudnn|cufft|cusparse|nccl|nvrtc)[^/]*\.so"
    )
    assert [path for path in files if cuda.search(str(path))] == []


def test_an_image_keeps_no_secrets_and_no_settings_of_pip(
    engine: Engine, shipped: Shipped, root: Path, files: list[Path]
) -> None:
    assert [path for path in files if path.name in ("pip.conf", ".netrc", ".pypirc", "pip.ini", "pipconf")] == []
    assert not any((root / "run" / "secrets").rglob("*"))
    assert not any((root / "root" / ".cache").rglob("*"))
    # What pip is told here, and where this machine has the notebook and the exported folder.
    told = {str(path) for path in build.pip_settings().paths} | {
        str(NOTEBOOK.parent),
        str(shipped.folder),
        str(standin.folder()),
    }
    told -= {str(path) for path in build.pip_settings().paths if "ssl" in str(path)}
    about = json.loads(engine("inspect", shipped.image).stdout)[0]
    texts = [json.dumps([about["Config"], about["History"], about["Labels"]])]
    small = [path for path in files if not path.is_symlink() and path.is_file() and path.stat().st_size < TEXT_BYTES]
    own = [path for path in small if path.is_relative_to(root / "opt" / "nbserve")]
    found = {word for word in told for text in texts if word in text}
    found |= {f"{word} in {path}" for path in own for word in told if word.encode() in path.read_bytes()}
    assert found == set()


def test_a_user_without_a_name_can_read_all_that_the_image_runs(root: Path, files: list[Path]) -> None:
    own = [path for path in files if path.is_relative_to(root / "opt" / "nbserve") and not path.is_symlink()]
    assert [path for path in own if not path.stat().st_mode & 0o004] == []
    assert [path for path in own if path.stat().st_mode & 0o022] == []


def test_the_image_says_how_it_is_run(engine: Engine, shipped: Shipped) -> None:
    about = json.loads(engine("inspect", "--type=image", shipped.image).stdout)[0]
    config = about["Config"]
    assert config["User"] == "10001"
    assert config["Entrypoint"] == ["nbserve"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8082/tcp"}
    assert about["Healthcheck"]["Test"] == ["CMD", "nbserve", "health"]


@dataclass(frozen=True)
class Served:
    """A container, and where it is asked."""

    container: Container
    place: str
    metrics_place: str

    @property
    def url(self) -> str:
        return f"http://{self.place}"


@pytest.fixture
def serve(run: Callable[..., Container], wait_until: Wait) -> Callable[..., Served]:
    """A container in this machine's network, on its loopback, ready."""

    def start(*words: str, **environ: str) -> Served:
        port, metrics_port = free_ports(2)
        settings = {"NBSERVE_HOST": "127.0.0.1", "NBSERVE_PORT": str(port), "NBSERVE_METRICS_PORT": str(metrics_port)}
        container = run(*words, environ={**settings, **environ})
        wait_until(lambda: container.is_healthy or not container.is_running, START_LIMIT_S)
        assert container.is_running, container.logs()
        return Served(container, f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}")

    return start


def test_it_answers_as_the_notebook_did_and_loses_nothing_when_it_ends(
    serve: Callable[..., Served], shipped: Shipped, wait_until: Wait
) -> None:
    began = time.monotonic()
    served = serve()
    print(f"ready {time.monotonic() - began:.1f} s after podman run")
    verified = nbserve("verify", served.url, str(shipped.folder / "golden.jsonl"))
    assert verified.returncode == 0, verified.stderr
    assert len(shipped.golden) > 0

    process = Path("/proc", str(served.container.pid))
    assert b"nbserve" in (process / "cmdline").read_bytes()
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert status["NSpid"].split()[-1] == "1"
    assert set(status["Uid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == 0
    assert served.container.execute("touch", "/opt/nbserve/x", check=False).returncode != 0

    load = Load(served.place, shipped.golden[0])
    load.start()
    wait_until(lambda: load.answered >= ENOUGH_ANSWERS)
    began = time.monotonic()
    served.container.signal("TERM")
    wait_until(lambda: not served.container.is_running)
    code = served.container.exit_code()
    took_s = time.monotonic() - began
    load.join()
    print(f"{load.answered} answers, {len(load.lost)} lost; {took_s:.1f} s from SIGTERM to exit {code}")
    assert code == 0
    assert load.lost == []
    assert set(load.statuses) == {200}
    lines = [json.loads(line) for line in served.container.logs().splitlines()]
    assert lines
    assert all({"time", "level", "message"} <= line.keys() for line in lines)


def test_the_defaults_are_sagemakers_and_management_is_for_the_container_alone(
    run: Callable[..., Container], shipped: Shipped, wait_until: Wait
) -> None:
    """In a network of its own, nothing set: `docker run IMAGE serve`."""
    container = run("serve", network="none")
    wait_until(lambda: container.is_healthy, START_LIMIT_S)
    golden = shipped.golden[0]
    # 127.0.0.2 is not where a loopback listener listens: it is what others would come to.
    curl = ("curl", "-sS", "--fail")
    container.from_within(*curl, "http://127.0.0.2:8080/ping")
    sent = ("--header", "Content-Type: application/json", "--data-binary", golden.request_body.decode())
    invoked = container.from_within(*curl, *sent, "http://127.0.0.2:8080/invocations").stdout
    assert json.loads(invoked) == json.loads(golden.answer_body)
    assert "nbserve_requests_total" in container.from_within(*curl, "http://127.0.0.2:8082/metrics").stdout
    listening = listeners(container)
    assert (8080, "0.0.0.0") in listening
    assert (8082, "0.0.0.0") in listening
    management = [port for port, host in listening if host == "127.0.0.1"]
    assert len(management) == 1
    assert {host for port, host in listening if port not in (8080, 8082)} == {"127.0.0.1"}
    refused = container.from_within("curl", "-sS", f"http://127.0.0.2:{management[0]}/", check=False)
    assert refused.returncode == 7, refused.stdout


def test_settings_come_from_the_environment_and_every_platform_finds_its_routes(
    serve: Callable[..., Served], shipped: Shipped
) -> None:
    [port] = free_ports(1)
    served = serve(
        NBSERVE_WORKERS="1",
        NBSERVE_MAX_BATCH_SIZE="3",
        AIP_HTTP_PORT=str(port),
        AIP_HEALTH_ROUTE="/is-it-well",
        AIP_PREDICT_ROUTE="/vertex",
        NBSERVE_PORT="",
    )
    url = f"http://127.0.0.1:{port}"
    [endpoint] = json.loads(served.container.execute("nbserve", "ps", "--json").stdout)[0]["endpoints"]
    assert len(endpoint["workers"]) == 1
    assert endpoint["settings"]["max_batch_size"] == 3

    body, answer = json.loads(shipped.golden[0].request_body), json.loads(shipped.golden[0].answer_body)
    assert status_of(f"{url}/is-it-well") == 200
    assert post(f"{url}/vertex", {"instances": [body, body]}) == {"predictions": [answer, answer]}
    assert post(f"{url}/v1/models/digits:predict", {"instances": [body]}) == {"predictions": [answer]}
    assert status_of(f"{url}/v2/health/ready") == 200
    assert status_of(f"{url}/v2/models/digits/ready") == 200
    assert post(f"{url}/predictions/digits", body) == answer


def test_prometheus_scrapes_it_and_the_dashboard_has_something_to_show(
    serve: Callable[..., Served], shipped: Shipped, tmp_path: Path, wait_until: Wait
) -> None:
    program, served = installed("prometheus"), serve()
    config, [port] = scrape_config(shipped.folder, served.metrics_place, tmp_path), free_ports(1)
    api, left = f"http://127.0.0.1:{port}/api/v1", set(map(asking, dashboard_queries(shipped.folder)))
    assert len(left) > 10

    def all_found() -> bool:
        assert post(f"{served.url}/predictions/digits", "no image", check=False) is None
        left.difference_update([query for query in left if has_data(api, query)])
        return not left

    load = Load(served.place, shipped.golden[0], clients=1)
    load.start()
    with running(tmp_path, *scraping(program, config, port)):
        try:
            wait_until(all_found)
        finally:
            load.stop()
            print(f"{load.answered} answers were counted; no data for {left or 'no query'}")
    assert load.lost == []


def layers(engine: Engine, image: str) -> list[str]:
    return list(json.loads(engine("inspect", image).stdout)[0]["RootFS"]["Layers"])


def nbserve(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nbserve", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
