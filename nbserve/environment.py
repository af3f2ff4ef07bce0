"""What a container tells a server by environment variables: text in, settings out. Read by `nbserve serve`."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbserve.config import EndpointConfig, ServerConfig
from nbserve.errors import ConfigError

PREFIX = "NBSERVE_"
BUNDLE = "NBSERVE_BUNDLE"
TOKEN = "NBSERVE_MANAGEMENT_TOKEN"
TOKEN_FILE = "NBSERVE_MANAGEMENT_TOKEN_FILE"
LEAST_TOKEN = 16
# No settings: read elsewhere, each where it is needed.
OTHERS = (
    BUNDLE,
    TOKEN,
    TOKEN_FILE,
    "NBSERVE_BUILDER",
    "NBSERVE_CACHE_DIR",
    "NBSERVE_COMPILED",
    "NBSERVE_COMPILED_RECORD",
    "NBSERVE_PROFILE",
    "NBSERVE_RUNTIME_DIR",
    "NBSERVE_START_METHOD",
)

_VARIABLES = {
    f"{PREFIX}{setting.name.upper()}": (config, setting.name)
    for config in (EndpointConfig, ServerConfig)
    for setting in dataclasses.fields(config)
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_TAKES = {int: "a whole number", float: "a number", bool: "true, false, 1 or 0"}
# Kubernetes describes each Service of the namespace to a pod in variables of these forms.
_LINK = re.compile(r"(tcp|udp|sctp)://.*")
_LINK_NAME = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_CLOSE = 0.8


@dataclass(frozen=True)
class PlatformRoutes:
    """Paths at which a platform asks, besides the server's own ("": none)."""

    health: str = ""
    predict: str = ""


@dataclass(frozen=True)
class Environment:
    """What the variables say; `warnings` are about those that look like a setting's, and are none."""

    bundles: tuple[Path, ...] = ()
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    server: Mapping[str, Any] = field(default_factory=dict)
    routes: PlatformRoutes = PlatformRoutes()
    warnings: tuple[str, ...] = ()


def read(environ: Mapping[str, str]) -> Environment:
    """Raises ConfigError that names the variable, its value, and what it takes."""
    settings: dict[type, dict[str, Any]] = {EndpointConfig: {}, ServerConfig: {}}
    for variable, (config, name) in _VARIABLES.items():
        text = environ.get(variable, "").strip()
        # A compose file passes on what is not set as an empty text; that turns off what can be off.
        if text or (variable in environ and getattr(config, name) == ""):
            settings[config][name] = _value(variable, text, config, name)
    # Vertex AI says where it will ask.
    if port := environ.get("AIP_HTTP_PORT", "").strip():
        settings[ServerConfig]["port"] = _value("AIP_HTTP_PORT", port, ServerConfig, "port")
    return Environment(
        bundles=tuple(Path(path) for path in environ.get(BUNDLE, "").split(os.pathsep) if path.strip()),
        endpoint=settings[EndpointConfig],
        server=settings[ServerConfig],
        routes=PlatformRoutes(_route(environ, "AIP_HEALTH_ROUTE"), _route(environ, "AIP_PREDICT_ROUTE")),
        warnings=tuple(_warnings(environ)),
    )


def management_token(environ: Mapping[str, str]) -> str | None:
    """The token that was given, None without one. No error shows any of it."""
    token, file = environ.get(TOKEN, "").strip(), environ.get(TOKEN_FILE, "").strip()
    if token and file:
        raise ConfigError(f"{TOKEN} and {TOKEN_FILE} are both set; one of them is enough")
    if file:
        try:
            token = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"{TOKEN_FILE} is {file!r}, which cannot be read: {reason}") from None
    elif not token:
        return None
    if len(token) < LEAST_TOKEN or not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(
            f"the token in {TOKEN_FILE if file else TOKEN} takes {LEAST_TOKEN} or more ASCII characters without spaces"
        )
    return token


def check_management(config: ServerConfig, token: str | None) -> None:
    """Raises ConfigError where others could reach the management API without a token that somebody chose."""
    if token is None and not _is_loopback(config.management_host):
        raise ConfigError(
            f"management_host is {config.management_host!r}, which others can reach: "
            f"give a token in {TOKEN}, or in a file that {TOKEN_FILE} names"
        )


def _value(variable: str, text: str, config: type[EndpointConfig] | type[ServerConfig], name: str) -> Any:
    if name.endswith("port") and _LINK.fullmatch(text):
        service = variable.removesuffix("_PORT").lower().replace("_", "-")
        raise ConfigError(
            f"{variable} is {text!r}: Kubernetes sets it so for a Service named {service}. "
            "Set enableServiceLinks: false in the pod's spec"
        )
    kind = type(getattr(config, name))
    try:
        value = _BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{variable} is {text!r}; it takes {_TAKES[kind]}") from None
    try:
        config().changed({name: value})
    except ConfigError as error:
        reason = str(error).partition("; ")[2] or error
        raise ConfigError(f"{variable} is {text!r}; {reason}") from None
    return value


def _route(environ: Mapping[str, str], variable: str) -> str:
    route = environ.get(variable, "").strip()
    if route and not re.fullmatch(r"/[!-~]*", route):
        raise ConfigError(f"{variable} is {route!r}; it takes a path, such as /predict")
    return route


def _warnings(environ: Mapping[str, str]) -> list[str]:
    known = {variable.removeprefix(PREFIX): variable for variable in (*_VARIABLES, *OTHERS)}
    warnings = []
    for variable, value in sorted(environ.items()):
        if not variable.upper().startswith(PREFIX) or variable in known.values():
            continue
        if _LINK.fullmatch(value) or _LINK_NAME.fullmatch(variable):
            continue
        name = variable[len(PREFIX) :].upper()
        if near := difflib.get_close_matches(name, known, n=1, cutoff=_CLOSE):
            warnings.append(f"{variable} is no setting; did you mean {known[near[0]]}?")
    return warnings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
