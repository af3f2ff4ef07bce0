"""Settings as command-line options: one for each field of a configuration. Used by the CLI and by `%%serve`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbserve.config import EndpointConfig, ServerConfig
from nbserve.debugging import DebugOptions, split_commands
from nbserve.errors import AutoTuneError, NbserveError, ProfileError
from nbserve.export.options import ExportOptions
from nbserve.profiling.options import AbOptions, ProfileOptions, is_given, worker_of
from nbserve.profiling.requests import Request
from nbserve.tune.options import DEFAULT_P99_MS, DEFAULT_S, TuneOptions

HELP_TEXTS = {
    "workers": "processes that run the handler",
    "max_batch_size": "most requests in one batch",
    "max_batch_delay_ms": "fixed window: how long the oldest request waits for others",
    "policy": "adaptive waits only for connections that come back; window waits max-batch-delay-ms",
    "queue_size": "requests that may wait before others get 503",
    "response_timeout_s": "a batch that takes longer costs its worker",
    "start_timeout_s": "how long initialize may take",
    "device": "auto, cpu, cuda, cuda:0, ..., or mps",
    "threads_per_worker": "0 means cores divided by workers",
    "isolate_errors": "run the rows of a batch that raised again, each alone",
    "hold_timeout_s": "a worker held at a breakpoint() that nobody attaches to goes on after this time",
    "compile": "a backend of torch.compile, such as inductor; batches of all sizes are compiled before the start",
    "compile_mode": "default, reduce-overhead, max-autotune or max-autotune-no-cudagraphs",
    "dtype": "float32, bfloat16 or float16: what the handler's modules compute in",
    "channels_last": "lay convolutions and the images they take out as NHWC",
    "inference_mode": "run the handler's three stages under torch.inference_mode()",
    "host": "address of the inference API",
    "port": "port of the inference API; 0 takes a free one",
    "management_port": "port of the management API; 0 takes a free one",
    "management_host": "its address; one beyond loopback needs a token in NBSERVE_MANAGEMENT_TOKEN or ..._TOKEN_FILE",
    "metrics_port": "port of GET /metrics without a token; 0 takes a free one, -1 none",
    "log_format": "text for people, json for one object a line",
    "max_body_bytes": "larger bodies get 413",
    "max_header_bytes": "larger heads get 431",
    "max_connections": "further connections get 503",
    "max_pipelined": "requests of one connection that may wait for their answers",
    "header_timeout_s": "time for the head of a request, then 408",
    "body_timeout_s": "time without a byte of the body, then 408",
    "keep_alive_timeout_s": "time an idle connection stays open",
    "drain_timeout_s": "time for the requests in flight when the server stops",
    "debug": "let debuggers of this user attach to the workers, and breakpoint() hold them",
}
DEBUG_HELP = """\
Without options it takes the worker that a breakpoint() holds, or waits
for one. The other workers go on serving.
q, Ctrl-D or closing the terminal let the request go on; fail ends it with
an error."""
PROFILE_HELP = """\
Without options it records 50 batches, or 10 seconds, of the first worker:
what clients ask meanwhile, or the recorded requests when nobody asks."""
TUNE_HELP = """\
Measures on workers of its own, beside the endpoint, with its recorded
requests: policy, batch size, delay, workers and threads. Without a goal the
99th percentile of latency is to stay within 100 ms. It stops when nothing is
left to try, and says how sure it is."""
EXPORT_HELP = """\
Writes a folder with the bundle, a Dockerfile, the files for Kubernetes and
Ray Serve, and a README that says how to run each. Before that it starts the
bundle as the container does and asks it the recorded requests: when it answers
in another way than in the notebook, nothing is written."""

_SWITCHES = {field.name for field in dataclasses.fields(EndpointConfig) if isinstance(field.default, bool)}
_WORDS = {int: "N", float: "X", str: "TEXT"}


def add_settings(parser: argparse.ArgumentParser, config: type[EndpointConfig] | type[ServerConfig]) -> None:
    """One option per setting; settings that are not given stay out of the result."""
    group = parser.add_argument_group("settings" if config is EndpointConfig else "server settings")
    for field in dataclasses.fields(config):
        option = f"--{field.name.replace('_', '-')}"
        kind: type = type(field.default)
        told: dict[str, Any] = {
            "help": f"{HELP_TEXTS[field.name]} (default: {'off' if field.default == '' else field.default})",
            "default": argparse.SUPPRESS,
        }
        if kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, **told)
        else:
            group.add_argument(option, type=str if kind is str else number(kind), metavar=_WORDS[kind], **told)


def settings_of(values: argparse.Namespace, config: type[EndpointConfig] | type[ServerConfig]) -> dict[str, Any]:
    """The settings that were given, by their names in `config`."""
    names = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in vars(values).items() if name in names}


def as_option(token: str) -> str:
    """`max_batch_size=8` written as the option `--max-batch-size=8`; other words stay as they are."""
    if not re.match(r"[a-z_]+=", token):
        return token
    name, _, value = token.partition("=")
    option = name.replace("_", "-")
    if name in _SWITCHES and value.lower() in ("true", "false", "1", "0"):
        return f"--{option}" if value.lower() in ("true", "1") else f"--no-{option}"
    return f"--{option}={value}"


def number(kind: type) -> Callable[[str], Any]:
    """A reader of numbers for argparse whose error says what it takes."""
    return functools.partial(_read_number, kind)


def _read_number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"takes {wanted}, not {text!r}") from None


def add_debug_options(parser: argparse.ArgumentParser) -> None:
    """The options of `Endpoint.debug`."""
    ways = parser.add_argument_group("ways in")
    ways.add_argument("--at", metavar="PLACE", help="stop at the next call of this method, or at this line of the cell")
    ways.add_argument("--if", dest="condition", metavar="COND", help="... if this expression is true there")
    ways.add_argument("--request", metavar="JSON", help="send this request (@FILE: a file's bytes) and stop in it")
    ways.add_argument("--last-error", action="store_true", help="look at the newest failure, while it goes on serving")
    ways.add_argument(
        "--replay", action="store_true", help="run the newest failing request again, in a worker of its own"
    )
    ways.add_argument("--interrupt", action="store_true", help="where is it stuck? its stack, then a prompt there")
    ways.add_argument("--port", type=number(int), metavar="N", help="start debugpy there, for VS Code or JupyterLab")
    more = parser.add_argument_group("more")
    more.add_argument(
        "--worker", type=number(int), metavar="I", help="in this worker (default: the one that fits best)"
    )
    more.add_argument("--commands", metavar="TEXT", help="run these, such as 'p x; w; c', then leave; no prompt")
    more.add_argument("--content-type", metavar="TYPE", help="of the --request (default: JSON, or raw bytes for files)")
    more.add_argument("--repeat", action="store_true", help="go on with the calls that follow, until you leave")
    more.add_argument(
        "--wait",
        dest="wait_s",
        type=number(float),
        metavar="S",
        help="wait so long for a stop (default: 60 with --commands)",
    )


def debug_options_of(values: argparse.Namespace) -> DebugOptions:
    """What was asked for; raises DebugError for options that do not go together."""
    body, kind = (None, None) if values.request is None else body_of(values.request)
    return DebugOptions(
        at=values.at,
        condition=values.condition,
        request=body,
        content_type=values.content_type or kind,
        last_error=values.last_error,
        replay=values.replay,
        interrupt=values.interrupt,
        worker=values.worker,
        commands=None if values.commands is None else split_commands(values.commands),
        port=values.port,
        repeat=values.repeat,
        wait_s=values.wait_s,
    )


def add_profile_options(parser: argparse.ArgumentParser) -> None:
    """The options of `Endpoint.profile` and `Endpoint.ab`."""
    record = parser.add_argument_group("what to record")
    record.add_argument(
        "--batches", type=number(int), metavar="K", help="until a worker has run so many, for 60 s at most"
    )
    record.add_argument("--seconds", type=number(float), metavar="T", help="... or for so long (--ab: about so long)")
    record.add_argument("--worker", metavar="I", help="this worker, or all (default: the first)")
    record.add_argument("--memory", action="store_true", help="who allocates how much, too; slows it down")
    record.add_argument("--stacks", action="store_true", help="Python functions between the operators; slows it down")
    record.add_argument("--startup", action="store_true", help="what was recorded from the start (NBSERVE_PROFILE=1)")
    ask = parser.add_argument_group("who asks")
    ask.add_argument("--load", type=number(float), metavar="RPS", help="send so many requests a second")
    ask.add_argument("--request", metavar="JSON", help="send this request (@FILE: a file's bytes) again and again")
    ask.add_argument("--content-type", metavar="TYPE", help="of the --request (default: JSON, or raw bytes for files)")
    prove = parser.add_argument_group("try a fix out")
    prove.add_argument(
        "--ab",
        metavar="FIX",
        help="against the current settings: a finding's number or name, or settings (compile=inductor,dtype=bfloat16)",
    )
    prove.add_argument("--apply", action="store_true", help="keep the settings if they are faster")
    prove.add_argument("--clients", type=number(int), metavar="N", help="that ask at once (default: as many as did)")


def profile_options_of(values: argparse.Namespace) -> ProfileOptions:
    """What to record; raises ProfileError for options that do not go together."""
    if values.apply or values.clients is not None:
        raise ProfileError(f"{'--apply' if values.apply else '--clients'} is about a fix: say which with --ab")
    body, kind = (None, None) if values.request is None else body_of(values.request)
    worker, is_all = worker_of(values.worker)
    return ProfileOptions(
        batches=values.batches,
        seconds=values.seconds,
        worker=worker,
        all_workers=is_all,
        load=values.load,
        request=body,
        content_type=values.content_type or kind,
        memory=values.memory,
        stacks=values.stacks,
        startup=values.startup,
    )


def ab_options_of(values: argparse.Namespace) -> AbOptions:
    """How to compare; raises ProfileError for options that do not go with --ab."""
    for name in ("batches", "worker", "load", "memory", "stacks", "startup"):
        if is_given(getattr(values, name)):
            raise ProfileError(f"--{name} and --ab do not go together: record first, then try what it proposes")
    given = []
    if values.request is not None:
        body, kind = body_of(values.request)
        given.append(Request(values.content_type or kind, body))
    return AbOptions(
        values.apply, values.clients, given, AbOptions.seconds if values.seconds is None else values.seconds
    )


def add_tune_options(parser: argparse.ArgumentParser) -> None:
    """The options of `Endpoint.tune`."""
    hope = parser.add_argument_group("what to keep")
    hope.add_argument(
        "--p99-ms",
        type=number(float),
        metavar="MS",
        help=f"99 of 100 requests are answered within this time (default: {DEFAULT_P99_MS:g})",
    )
    hope.add_argument(
        "--load",
        type=number(float),
        metavar="RPS",
        help="serve so many requests a second or more, that come by chance (default: clients that wait for answers)",
    )
    ask = parser.add_argument_group("how to find it")
    ask.add_argument("--seconds", type=number(float), metavar="T", help=f"for so long at most (default: {DEFAULT_S:g})")
    ask.add_argument("--request", metavar="JSON", help="send this request (@FILE: a file's bytes) again and again")
    ask.add_argument("--content-type", metavar="TYPE", help="of the --request (default: JSON, or raw bytes for files)")
    ask.add_argument("--apply", action="store_true", help="change to the best settings if they are proven to be better")


def tune_options_of(values: argparse.Namespace) -> TuneOptions:
    """How to tune; raises AutoTuneError for values that make no sense."""
    given = []
    if values.request is not None:
        body, kind = body_of(values.request)
        given.append(Request(values.content_type or kind, body))
    elif values.content_type is not None:
        raise AutoTuneError("--content-type is about a --request, and there is none")
    seconds = DEFAULT_S if values.seconds is None else values.seconds
    return TuneOptions(values.p99_ms, values.load, seconds, values.apply, tuple(given))


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """The options of `Endpoint.export`."""
    image = parser.add_argument_group("the image")
    image.add_argument(
        "--build", metavar="TAG", help="build it too, and call it so; with docker, podman or buildah, whichever is here"
    )
    image.add_argument(
        "--gpu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="torch with CUDA, and ask for a GPU (default: as the setting device says)",
    )
    image.add_argument(
        "--port",
        type=number(int),
        metavar="N",
        default=ExportOptions.port,
        help=f"where it listens (default: {ExportOptions.port})",
    )
    image.add_argument("--index-url", metavar="URL", help="the package index torch comes from (default: what fits it)")
    image.add_argument("--base", metavar="IMAGE", help="build upon this image (default: Python's own, slim)")
    prove = parser.add_argument_group("what it is proven with")
    prove.add_argument(
        "--golden", type=Path, metavar="FILE", help="requests and answers, in place of those that were recorded"
    )
    prove.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PLACE",
        help="not compared, as it is new in each answer: $.id, or $.rows[*].id",
    )


def export_options_of(values: argparse.Namespace) -> ExportOptions:
    """How to export."""
    return ExportOptions(
        build=values.build,
        gpu=values.gpu,
        port=values.port,
        index_url=values.index_url,
        base=values.base,
        golden=values.golden,
        ignore=tuple(values.ignore),
    )


def body_of(text: str) -> tuple[bytes, str]:
    """A request's body and its content type: the text itself, or the file that `@FILE` names."""
    if not text.startswith("@"):
        return text.encode(), "application/json"
    path = Path(text[1:])
    try:
        return path.read_bytes(), "application/json" if path.suffix == ".json" else "application/octet-stream"
    except OSError as error:
        raise NbserveError(f"cannot read {path}: {error.strerror}") from None
