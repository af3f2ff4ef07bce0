"""Settings of an endpoint and of a server: frozen dataclasses with the unit in each name."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from nbserve.errors import ConfigError

Policy = Literal["adaptive", "window"]
LogFormat = Literal["text", "json"]
MAX_PORT = 65_535
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
DTYPES = ("float32", "bfloat16", "float16")
_SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}
Config = TypeVar("Config", "EndpointConfig", "ServerConfig")


@dataclass(frozen=True)
class EndpointConfig:
    """How one endpoint batches, queues and runs. Every field can be set for a live endpoint.

    `max_batch_delay_ms` counts from the oldest waiting request and is only used by the policy `window`;
    setting it without naming a policy selects `window`. `device` is `auto`, `cpu`, `cuda` or `cuda:N`.
    `threads_per_worker` 0 means cores divided by workers. A worker held at a `breakpoint()` to which no debugger
    attaches goes on by itself after `hold_timeout_s`.

    `compile` is a backend of torch.compile; setting `compile_mode` without one selects `inductor`. In `compile`,
    `compile_mode` and `dtype` an empty text leaves the handler's modules as they are.
    """

    workers: int = 1
    max_batch_size: int = 32
    max_batch_delay_ms: float = 0.0
    policy: Policy = "adaptive"
    queue_size: int = 1024
    response_timeout_s: float = 60.0
    start_timeout_s: float = 300.0
    device: str = "auto"
    threads_per_worker: int = 0
    isolate_errors: bool = True
    hold_timeout_s: float = 120.0
    compile: str = ""
    compile_mode: str = ""
    dtype: str = ""
    channels_last: bool = False
    inference_mode: bool = False

    def __post_init__(self) -> None:
        _at_least(self, "workers", 1)
        _at_least(self, "max_batch_size", 1)
        _at_least(self, "max_batch_delay_ms", 0)
        _at_least(self, "queue_size", 1)
        _at_least(self, "response_timeout_s", 0.001)
        _at_least(self, "start_timeout_s", 0.001)
        _at_least(self, "threads_per_worker", 0)
        _at_least(self, "hold_timeout_s", 0)
        if self.policy not in ("adaptive", "window"):
            raise ConfigError(f"policy is {self.policy!r}; it can be 'adaptive' or 'window'")
        _check_device(self.device)
        _check_compile(self.compile, self.compile_mode)
        _check_dtype(self.dtype)

    def changed(self, settings: Mapping[str, Any]) -> EndpointConfig:
        """This configuration with `settings` laid over it; raises ConfigError for a wrong name or value."""
        values = _checked(EndpointConfig, settings)
        if "max_batch_delay_ms" in values and "policy" not in values:
            values["policy"] = "window"
        if values.get("compile_mode") and not values.get("compile", self.compile):
            values.setdefault("compile", "inductor")
        if values.get("compile") == "":
            values.setdefault("compile_mode", "")
        return dataclasses.replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def tuned(self) -> dict[str, Any]:
        """The settings to lay over the defaults to get these: those that differ."""
        default = EndpointConfig()
        differ = {name: value for name, value in self.as_dict().items() if value != getattr(default, name)}
        if "max_batch_delay_ms" in differ:
            # A delay alone would select the window.
            differ["policy"] = self.policy
        return differ


@dataclass(frozen=True)
class ServerConfig:
    """Where a server listens, what it takes from a connection, how it logs. Port 0 means any free port, -1 none.

    `metrics_port` is open to everybody who reaches `host`, and shows metrics alone. A `management_host` beyond loopback
    needs a token that was given. With `debug` each worker has an agent that debuggers attach to, and `breakpoint()`
    holds; without it there is no agent, and `breakpoint()` only writes to the log.
    """

    host: str = "127.0.0.1"
    port: int = 0
    management_port: int = 0
    management_host: str = "127.0.0.1"
    metrics_port: int = -1
    log_format: LogFormat = "text"
    max_body_bytes: int = 256 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    max_connections: int = 16_384
    max_pipelined: int = 64
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_timeout_s: float = 75.0
    drain_timeout_s: float = 30.0
    debug: bool = False

    def __post_init__(self) -> None:
        _check_port(self, "port", 0)
        _check_port(self, "management_port", 0)
        _check_port(self, "metrics_port", -1)
        for field in dataclasses.fields(self):
            if type(field.default) in (int, float) and not field.name.endswith("port"):
                _at_least(self, field.name, 0.001)
        if self.log_format not in ("text", "json"):
            raise ConfigError(f"log_format is {self.log_format!r}; it can be 'text' or 'json'")

    def changed(self, settings: Mapping[str, Any]) -> ServerConfig:
        return dataclasses.replace(self, **_checked(ServerConfig, settings))


def _checked(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    return {name: _value(fields, name, value) for name, value in settings.items()}


def _value(fields: Mapping[str, Any], name: str, value: Any) -> Any:
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(fields)}"
        raise ConfigError(f"there is no setting {name!r}{hint}")
    wanted = type(fields[name].default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{name} is {value!r}; it takes {_words[wanted]}")
    return value


_words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _at_least(config: Any, name: str, least: float) -> None:
    value = getattr(config, name)
    if not math.isfinite(value) or value < least:
        raise ConfigError(f"{name} is {value}; the least it can be is {least}")


def _check_port(config: ServerConfig, name: str, least: int) -> None:
    _at_least(config, name, least)
    if getattr(config, name) > MAX_PORT:
        raise ConfigError(f"{name} is {getattr(config, name)}; the most it can be is {MAX_PORT}")


def _check_device(device: str) -> None:
    kind, colon, index = device.partition(":")
    known = kind in ("auto", "cpu", "cuda", "mps") and (not colon or (kind == "cuda" and index.isdigit()))
    if not known:
        raise ConfigError(f"device is {device!r}; it can be 'auto', 'cpu', 'cuda', 'cuda:0', 'cuda:1', ..., or 'mps'")


def _check_compile(backend: str, mode: str) -> None:
    if backend in COMPILE_MODES:
        raise ConfigError(f"compile is {backend!r}, which is a mode: set compile_mode to it, and compile to a backend")
    if backend.lower() in ("off", "none", "no", "false"):
        raise ConfigError(f"compile is {backend!r}; an empty text turns it off (compile= in a command)")
    if mode and mode not in COMPILE_MODES:
        raise ConfigError(f"compile_mode is {mode!r}; it can be {_listed(COMPILE_MODES)}")
    if mode and not backend:
        raise ConfigError(f"compile_mode is {mode!r} but compile is empty: set compile to 'inductor' too")


def _check_dtype(dtype: str) -> None:
    if dtype and dtype not in DTYPES:
        named = dtype.rpartition(".")[2].lower()
        meant = _SHORT_DTYPES.get(named, named)
        hint = f"; did you mean {meant}?" if meant in DTYPES else f"; it can be {_listed(DTYPES)}, or empty"
        raise ConfigError(f"dtype is {dtype!r}{hint}")


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
