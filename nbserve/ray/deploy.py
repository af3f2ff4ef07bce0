"""Puts a bundle on a Ray cluster, and takes it off. Runs in a process of its own: a terminal's, or a kernel's child."""

from __future__ import annotations

import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ray
from ray import serve

from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import NotFound, RayError, StartError
from nbserve.ray import package
from nbserve.ray.app import build
from nbserve.ray.options import Deployed, RayOptions

# Ray keeps what it takes to the nodes in the memory of the head node, and takes no more than twice this.
MAX_PACKAGE_BYTES = 250 * 1024 * 1024
_POLL_S = 0.2
_REACH_LIMIT_S = 5.0
OnProgress = Callable[[str], None]


def deploy(bundle: Path, options: RayOptions, on_progress: OnProgress = lambda text: None) -> Deployed:
    """Run a bundle on a cluster; done when its replicas are ready. One of that name is replaced, replica by replica."""
    found = Bundle.read(bundle)
    config = EndpointConfig().changed({**found.settings, **options.settings})
    # Before anything is started: numbers that make no sense.
    options.deployment_options(config)
    with _packed(found, config, options) as archive, _connected(options.address, archive):
        return _Deployment(found, config, options, on_progress).run(place=package.PLACE if archive else None)


def delete(name: str, address: str = "auto") -> None:
    """Take an application off the cluster; raises NotFound with the names that there are."""
    with _connected(address, None):
        there = _running()
        if name not in there:
            known = f"there is: {', '.join(there)}" if there else "none runs"
            raise NotFound(f"no application on this cluster is named {name!r}; {known}")
        serve.delete(name)


def _running() -> list[str]:
    """The applications of the cluster, without those that end."""
    return [name for name, status in serve.status().applications.items() if status.status != "DELETING"]


class _Deployment:
    """One application on its way to its replicas."""

    def __init__(self, bundle: Bundle, config: EndpointConfig, options: RayOptions, tell: OnProgress) -> None:
        self._bundle = bundle
        self._config = config
        self._options = options
        self._name = options.name or bundle.name
        self._tell = tell

    def run(self, place: str | None) -> Deployed:
        options, bundle = self._options, self._bundle
        serve.start(http_options={"host": options.host, "port": options.port})
        is_new = self._name not in _running()
        application = build(
            bundle.path,
            settings=options.settings,
            replicas=options.replicas,
            autoscaling=options.autoscaling,
            cpus=options.cpus,
            gpus=options.gpus,
            place=place,
        )
        target = serve.RunTarget(application, name=self._name, route_prefix=options.route_prefix)
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        try:
            self._wait()
        except BaseException:
            if is_new:
                # What started of it may take long to end, and nobody waits for it.
                serve.delete(self._name, _blocking=False)
            raise
        return self._deployed()

    def _wait(self) -> None:
        """Until it runs; raises StartError with what Ray says of it when it does not, or not in time."""
        deadline = time.monotonic() + self._config.start_timeout_s
        said = ""
        while True:
            status = serve.status().applications[self._name]
            text = _text_of(status)
            if status.status == "RUNNING":
                return
            if status.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise StartError(f"{self._name} does not start on Ray", text)
            if time.monotonic() > deadline:
                raise StartError(f"{self._name} is not ready after {self._config.start_timeout_s:g} s", text)
            if text and text != said:
                self._tell(text)
                said = text
            time.sleep(_POLL_S)

    def _deployed(self) -> Deployed:
        path = f"{self._options.route_prefix.rstrip('/')}/predictions/{quote(self._bundle.name)}"
        replicas = sum(
            count
            for deployment in serve.status().applications[self._name].deployments.values()
            for state, count in deployment.replica_states.items()
            if state == "RUNNING"
        )
        return Deployed(self._name, self._bundle.name, self._bundle.version, f"{_proxy()}{path}", replicas)


def _text_of(status: Any) -> str:
    """What Ray says of an application and its deployments."""
    messages = [status.message, *(each.message for each in status.deployments.values())]
    return "\n".join(dict.fromkeys(message.strip() for message in messages if message))


def _proxy() -> str:
    """Where a proxy listens: Serve may have been started by somebody else, elsewhere than we asked."""
    # Nothing public tells.
    from ray.serve.context import _get_global_client

    listens = _get_global_client().http_config
    host = ray.util.get_node_ip_address() if listens.host in ("0.0.0.0", "::", None) else listens.host
    return f"http://{f'[{host}]' if ':' in host else host}:{listens.port}"


@contextmanager
def _packed(bundle: Bundle, config: EndpointConfig, options: RayOptions) -> Iterator[Path | None]:
    """The zip to take to the nodes; None where they have the bundle."""
    if options.in_place:
        yield None
        return
    # Recorded requests warm the compiler up; otherwise they stay at home.
    with_golden = bool(config.compile)
    size = package.size_of(bundle, with_golden)
    if size > MAX_PACKAGE_BYTES:
        raise RayError(
            f"{bundle.path} has {size / 1e6:.0f} MB, and Ray should take no more than {MAX_PACKAGE_BYTES / 1e6:.0f} MB "
            "to its nodes: put it where all nodes have it at the same path, on a shared disk or in their image, and "
            "deploy it from there with --in-place"
        )
    with tempfile.TemporaryDirectory(prefix="nbserve-ray-") as folder:
        archive = Path(folder, f"{bundle.name}.zip")
        package.write(bundle, archive, with_golden)
        yield archive


@contextmanager
def _connected(address: str, archive: Path | None) -> Iterator[None]:
    environment = {"working_dir": str(archive)} if archive else {}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        _reach(address)
        ray.init(
            address, runtime_env=environment, namespace="serve", log_to_driver=False, logging_level=logging.WARNING
        )
    except (ConnectionError, ValueError) as error:
        start = "start one with `ray start --head`, or name one with --address"
        raise RayError(f"no Ray cluster answers at {address!r} ({error}): {start}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise ConnectionError where nothing answers: Ray itself would go on trying for many minutes."""
    # The one place that knows which cluster "auto" is, and that 127.0.0.1 is another address of this machine to Ray.
    from ray._private import services

    found = address.partition("://")[2] or services.canonicalize_bootstrap_address_or_die(address)
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_LIMIT_S).close()
    except OSError as error:
        raise ConnectionError(f"{found}: {error.strerror or error}") from None
