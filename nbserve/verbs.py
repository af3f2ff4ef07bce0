"""An endpoint held from Python: each verb of `%serve` and of `nbserve` is a method. Runs in the kernel and the CLI."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import orjson

from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import Unavailable
from nbserve.exchange import Answer, decode, encode, predict_error
from nbserve.logtext import log_text

if TYPE_CHECKING:
    from nbserve.deployment import Server
    from nbserve.export.session import Exported
    from nbserve.profiling.comparison import Comparison
    from nbserve.profiling.profile import Profile
    from nbserve.ray.options import Deployed
    from nbserve.trace.model import Finding
    from nbserve.tune.tuned import Tuned

SHORT_BYTES = 200
# None is a body too.
_NO_REQUEST: Any = object()

OnProgress = Callable[[str], None]


class Relayed(NamedTuple):
    """What the management API answered, as it came."""

    status: int
    content_type: str
    body: bytes


class Endpoint:
    """One endpoint of a running server; every verb of `%serve` is a method here."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.version} at {self.url}>"

    def stats(self) -> dict[str, Any]:
        """Its part of the `nbserve ps --json` object: state, settings, queue, workers, request counts."""
        found: dict[str, Any] = self.server.call("GET", self.path)
        return found

    @property
    def path(self) -> str:
        """Its route in the management API."""
        return f"/endpoints/{quote(self.name)}"

    @property
    def version(self) -> str:
        return str(self.stats()["version"])

    @property
    def url(self) -> str:
        """Where predictions are asked for: POST a body there."""
        return f"{self.server.run_file.url}/predictions/{quote(self.name)}"

    @property
    def bundle(self) -> Path:
        return Path(self.stats()["bundle"])

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.stats()["settings"]
        return found

    def predict(self, body: Any, *, content_type: str | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send one request and give the decoded answer (JSON: object, text: str, else bytes).

        `body`: bytes go as they are, str as text, anything else as JSON (arrays and tensors as nested lists).
        The pair is recorded in the bundle: later versions must answer it too, and an export in the same way. With
        `headers` it is not, as they may hold secrets, and the answer may hang on them. Raises PredictError for an error
        answer.
        """
        data, kind = encode(body)
        sent = {"Content-Type": content_type or kind, **(headers or {})}
        url = urlsplit(self.url)
        with Answer(f"{url.scheme}://{url.netloc}", "POST", url.path, data, sent) as answer:
            received, answer_type = answer.read(), answer.content_type
        if answer.status >= 400:
            raise predict_error(answer.status, received)
        if not headers:
            Bundle.read(self.bundle).record(data, sent["Content-Type"], answer.status, received, answer_type)
        return decode(received, answer_type)

    def configure(self, **settings: Any) -> dict[str, Any]:
        """Change settings of the running endpoint; gives all of them. Raises ConfigError for a wrong one."""
        found: dict[str, Any] = self.server.call("PATCH", self.path, settings)
        changed: dict[str, Any] = found["settings"]
        return changed

    def spans(self, last: int = 500) -> list[dict[str, Any]]:
        """The newest requests with the milliseconds each spent in queue, batch, worker stages and answer."""
        found: list[dict[str, Any]] = self.server.call("GET", f"{self.path}/spans?last={last}")
        return found

    def logs(self, lines: int = 200) -> str:
        """The newest log lines of its workers."""
        return log_text(self.log_lines(lines))

    def log_lines(self, lines: int = 200, after: int = 0) -> list[dict[str, Any]]:
        """The newest log lines as objects; `after` leaves out those up to that number."""
        found: list[dict[str, Any]] = self.server.call("GET", f"{self.path}/logs?lines={lines}&after={after}")
        return found

    def holds(self, limit_s: float | None = None) -> Generator[list[dict[str, Any]], None, None]:
        """Which workers are held in a debugger and where: now, and again at each change.

        Ends with the endpoint; raises TimeoutError after `limit_s`.
        """
        with self.server.send("GET", f"{self.path}/holds", b"", {}) as answer:
            for line in answer.lines(limit_s):
                yield orjson.loads(line)["held"]

    def stream(self, interval_s: float = 0.5, limit_s: float | None = None) -> Generator[dict[str, Any], None, None]:
        """How it does, live: `begin` with the samples of the last two minutes, then its stats again and again.

        Ends with `gone` when the endpoint is stopped; raises TimeoutError after `limit_s`.
        """
        with self.server.send("GET", f"{self.path}/stream?interval_s={interval_s:g}", b"", {}) as answer:
            for line in answer.lines(limit_s):
                yield orjson.loads(line)

    def load(
        self,
        *,
        clients: int | None = None,
        rate: float | None = None,
        seconds: float = 10.0,
        requests: Sequence[Any] = (),
    ) -> dict[str, Any]:
        """Put load on it for some seconds; gives its status, which `stream` tells on. Ends what was put on it before.

        Either `clients` that wait for their answers, or a `rate` in requests a second. They ask what was recorded, or
        `requests` (bodies as `predict` takes them).
        """
        asked = [
            {"content_type": kind, "body_base64": base64.b64encode(body).decode()}
            for body, kind in map(encode, requests)
        ]
        wish = {"clients": clients, "rate": rate, "seconds": seconds, "requests": asked}
        found: dict[str, Any] = self.server.call("POST", f"{self.path}/load", wish)
        return found

    def stop_load(self) -> dict[str, Any]:
        """End the load that was put on it; gives what came of it. Raises NotFound when there was none."""
        found: dict[str, Any] = self.server.call("DELETE", f"{self.path}/load")
        return found

    def recorded(self, last: int = 20) -> list[dict[str, Any]]:
        """The newest recorded requests and their answers, newest last; bodies are in base64."""
        found: list[dict[str, Any]] = self.server.call("GET", f"{self.path}/recorded?last={last}")
        return found

    def relay(self, method: str, path: str, body: bytes = b"") -> Relayed:
        """Any call of the management API below this endpoint's path, JSON in; an error is an answer like others."""
        with self.server.ask(method, self.path + path, body, {"Content-Type": "application/json"}) as answer:
            return Relayed(answer.status, answer.content_type, answer.read())

    def debug(
        self,
        *,
        at: str | int | None = None,
        condition: str | None = None,
        request: Any = _NO_REQUEST,
        content_type: str | None = None,
        last_error: bool = False,
        replay: bool = False,
        interrupt: bool = False,
        worker: int | None = None,
        commands: str | Sequence[str] | None = None,
        port: int | None = None,
        repeat: bool = False,
        wait_s: float | None = None,
    ) -> str | None:
        """Debug a worker with pdb while the others serve; with `commands` it gives what was shown.

        Without arguments it takes the worker that a `breakpoint()` holds, or waits for one. `at` stops at the next call
        of a method or at a line, `request` sends this body (as `predict` does) and stops in it, `last_error` looks at
        the newest failure, `replay` runs it again, `interrupt` prompts in what runs now, `port` waits for an editor.
        `commands` (`"p x; w; c"` or a list) run in place of a person. Leaving lets the request go on.
        """
        from nbserve.debugging import DebugOptions, debug, split_commands

        body, kind = (None, None) if request is _NO_REQUEST else encode(request)
        options = DebugOptions(
            at=None if at is None else str(at),
            condition=condition,
            request=body,
            content_type=content_type or kind,
            last_error=last_error,
            replay=replay,
            interrupt=interrupt,
            worker=worker,
            commands=split_commands(commands) if isinstance(commands, str) else commands,
            port=port,
            repeat=repeat,
            wait_s=wait_s,
        )
        shown = debug(self, options)
        # A person has seen it.
        return None if commands is None else shown

    def profile(
        self,
        *,
        batches: int | None = None,
        seconds: float | None = None,
        worker: int | str | None = None,
        load: float | None = None,
        request: Any = _NO_REQUEST,
        content_type: str | None = None,
        memory: bool = False,
        stacks: bool = False,
        shapes: bool = True,
        startup: bool = False,
        on_progress: OnProgress = lambda text: None,
    ) -> Profile:
        """Record where the time of its requests goes, from HTTP to kernel; done after `batches` or `seconds`.

        `worker` is one's number or "all". What clients ask meanwhile is recorded; without any the recorded requests
        are sent, or `request` (as `predict` does), or as many as `load` a second. `startup` is what was recorded of
        its start under NBSERVE_PROFILE=1.
        """
        from nbserve.profiling.options import ProfileOptions, worker_of
        from nbserve.profiling.session import record

        one, is_all = worker_of(worker)
        body, kind = (None, None) if request is _NO_REQUEST else encode(request)
        asked = ProfileOptions(
            batches=batches,
            seconds=seconds,
            worker=one,
            all_workers=is_all,
            load=load,
            request=body,
            content_type=content_type or kind,
            memory=memory,
            stacks=stacks,
            shapes=shapes,
            startup=startup,
        )
        return record(self, asked, on_progress)

    def ab(
        self,
        fix: str | int | Mapping[str, Any] | Finding,
        *,
        apply: bool = False,
        clients: int | None = None,
        requests: Sequence[Any] = (),
        seconds: float = 20.0,
        on_progress: OnProgress = lambda text: None,
    ) -> Comparison:
        """Try settings out against the current ones, on workers of their own, and say what is faster.

        `fix` is a finding of the last profile, its number or name, or settings ("compile=inductor,dtype=bfloat16").
        Both get the recorded requests (or `requests`) in turns for about `seconds`, from as many clients at once as
        the last profile saw. `apply` keeps them if they are faster.
        """
        from nbserve.profiling.ab import compare
        from nbserve.profiling.options import AbOptions
        from nbserve.profiling.requests import Request

        given = [Request(kind, body) for body, kind in map(encode, requests)]
        return compare(self, fix, AbOptions(apply, clients, given, seconds), on_progress)

    def panel(self) -> None:
        """Show how it does, live, in the cell that calls this; in a terminal what there is to say now."""
        from nbserve.notebook.panels import show

        show(self)

    def controls(self) -> Any:
        """Plain ipywidgets bound to its live settings, such as `c.workers`; they can be linked with others."""
        from nbserve.notebook.controls import Controls

        return Controls(self)

    def tune(
        self,
        p99_ms: float | None = None,
        *,
        load: float | None = None,
        seconds: float = 120.0,
        apply: bool = False,
        requests: Sequence[Any] = (),
        on_progress: OnProgress = lambda text: None,
    ) -> Tuned:
        """Search the settings with the highest throughput whose 99th percentile of latency stays within `p99_ms`.

        It measures on workers of its own, with the recorded requests (or `requests`): from clients that wait for their
        answers, or from `load` requests a second upwards. `apply` keeps the best if it is proven to be better. An
        interrupt ends it with the best so far. Raises AutoTuneError when nothing keeps the goal.
        """
        from nbserve.profiling.requests import Request
        from nbserve.tune.options import TuneOptions
        from nbserve.tune.session import tune
        from nbserve.tune.summary import progress

        given = [Request(kind, body) for body, kind in map(encode, requests)]
        asked = TuneOptions(p99_ms, load, seconds, apply, given)
        return tune(self, asked, lambda state: on_progress(progress(state)))

    def export(
        self,
        directory: str | os.PathLike[str],
        *,
        build: str | None = None,
        gpu: bool | None = None,
        port: int = 8080,
        index_url: str | None = None,
        base: str | None = None,
        golden: str | os.PathLike[str] | None = None,
        ignore: Sequence[str] = (),
        on_progress: OnProgress = lambda text: None,
    ) -> Exported:
        """Write a folder that runs this endpoint elsewhere: as a container, on Kubernetes, on Ray Serve.

        The exported bundle is started and asked the recorded requests (or those of the file `golden`) first; places
        of answers that are new each time (`$.id`) go into `ignore`. `build` is the tag of an image to build. Raises
        ExportError, and GoldenMismatch when it answers in another way; nothing half-written is left then.
        """
        from nbserve.export.options import ExportOptions
        from nbserve.export.session import export

        options = ExportOptions(
            build, gpu, port, index_url, base, None if golden is None else Path(golden), tuple(ignore)
        )
        return export(self._bundle_as_tuned(), Path(directory), options, on_progress)

    def to_ray(
        self,
        *,
        address: str = "auto",
        name: str | None = None,
        route_prefix: str = "/",
        replicas: int | None = None,
        min_replicas: int | None = None,
        max_replicas: int | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        port: int = 8000,
        in_place: bool = False,
        on_progress: OnProgress = lambda text: None,
    ) -> Deployed:
        """Run its bundle, with the settings of now, on a Ray cluster too; gives where predictions are asked for there.

        Ray owns the replicas: `replicas` of them (default: as many as workers), or as many as it finds right from
        `min_replicas` to `max_replicas`, each with `cpus` and `gpus` of its own. Ray takes the bundle to the nodes,
        unless it is `in_place`: at the same path on all of them. `port` counts only where Serve does not listen yet.
        """
        from nbserve.ray.launch import launch
        from nbserve.ray.options import RayOptions

        options = RayOptions(
            address=address,
            name=name,
            route_prefix=route_prefix,
            replicas=replicas,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            cpus=cpus,
            gpus=gpus,
            port=port,
            in_place=in_place,
        )
        return launch(self._bundle_as_tuned(), options, on_progress)

    def _bundle_as_tuned(self) -> Path:
        """Its bundle, which has the settings of now; options of `nbserve serve` are not in it until then."""
        status = self.stats()
        if status["bundle"] is None:
            raise Unavailable(f"endpoint {self.name} is starting")
        bundle = Bundle.read(status["bundle"])
        if EndpointConfig().changed(bundle.settings).as_dict() != status["settings"]:
            self.configure()
        return bundle.path

    def stop(self) -> None:
        """Answer what waits, then end its workers; the server goes on."""
        self.server.call("DELETE", self.path)

    def curl(self) -> str:
        """A command line that asks it for a prediction, with the recorded request when there is a short one."""
        golden = Bundle.read(self.bundle).golden()
        body, content_type = "[1, 2, 3]", "application/json"
        for pair in reversed(golden):
            if pair.content_type.startswith(("application/json", "text/")) and len(pair.request_body) < SHORT_BYTES:
                body, content_type = pair.request_body.decode(), pair.content_type
                break
        return f"curl -H 'Content-Type: {content_type}' -d {shlex.quote(body)} {self.url}"
