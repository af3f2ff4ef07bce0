"""Settings from environment variables."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from nbserve import environment
from nbserve.config import EndpointConfig, ServerConfig
from nbserve.environment import LEAST_TOKEN, OTHERS, PlatformRoutes, check_management, management_token, read
from nbserve.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "0123456789abcdef-secret"


def test_nothing_is_set_by_nothing() -> None:
    assert read({"HOME": "/root", "PATH": "/bin"}) == environment.Environment()


def test_every_setting_has_a_variable() -> None:
    for config in (EndpointConfig(), ServerConfig()):
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        environ = {f"NBSERVE_{name.upper()}": str(value) for name, value in values.items()}
        told = read(environ)
        assert {**values, **told.endpoint, **told.server} == values
        assert told.endpoint.keys() | told.server.keys() == values.keys()


@pytest.mark.parametrize("text", ["true", "True", "1", " TRUE "])
def test_switches_are_turned_on(text: str) -> None:
    assert read({"NBSERVE_DEBUG": text}).server == {"debug": True}


@pytest.mark.parametrize("text", ["false", "FALSE", "0"])
def test_switches_are_turned_off(text: str) -> None:
    assert read({"NBSERVE_ISOLATE_ERRORS": text}).endpoint == {"isolate_errors": False}


def test_numbers_keep_their_kind() -> None:
    told = read({"NBSERVE_WORKERS": " 2 ", "NBSERVE_RESPONSE_TIMEOUT_S": "3", "NBSERVE_METRICS_PORT": "-1"})
    assert told.endpoint == {"workers": 2, "response_timeout_s": 3.0}
    assert type(told.endpoint["response_timeout_s"]) is float
    assert told.server == {"metrics_port": -1}


def test_an_empty_variable_is_as_good_as_none_unless_it_turns_something_off() -> None:
    told = read(
        dict.fromkeys(("NBSERVE_HOST", "NBSERVE_WORKERS", "NBSERVE_DEBUG", "NBSERVE_DTYPE", "NBSERVE_BUNDLE"), "")
    )
    assert (told.endpoint, told.server, told.bundles) == ({"dtype": ""}, {}, ())


def test_bundles_are_a_search_path() -> None:
    assert read({"NBSERVE_BUNDLE": "/a/b::/c"}).bundles == (Path("/a/b"), Path("/c"))


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("NBSERVE_WORKERS", "two", "NBSERVE_WORKERS is 'two'; it takes a whole number"),
        ("NBSERVE_WORKERS", "1.5", "NBSERVE_WORKERS is '1.5'; it takes a whole number"),
        ("NBSERVE_WORKERS", "0", "NBSERVE_WORKERS is '0'; the least it can be is 1"),
        ("NBSERVE_MAX_BATCH_DELAY_MS", "5ms", "NBSERVE_MAX_BATCH_DELAY_MS is '5ms'; it takes a number"),
        ("NBSERVE_RESPONSE_TIMEOUT_S", "inf", "NBSERVE_RESPONSE_TIMEOUT_S is 'inf'; the least it can be is 0.001"),
        ("NBSERVE_DEBUG", "yes", "NBSERVE_DEBUG is 'yes'; it takes true, false, 1 or 0"),
        ("NBSERVE_POLICY", "greedy", "NBSERVE_POLICY is 'greedy'; it can be 'adaptive' or 'window'"),
        ("NBSERVE_DTYPE", "bf16", "NBSERVE_DTYPE is 'bf16'; did you mean bfloat16?"),
        ("NBSERVE_LOG_FORMAT", "JSON", "NBSERVE_LOG_FORMAT is 'JSON'; it can be 'text' or 'json'"),
        ("NBSERVE_PORT", "70000", "NBSERVE_PORT is '70000'; the most it can be is 65535"),
        ("AIP_HTTP_PORT", "http", "AIP_HTTP_PORT is 'http'; it takes a whole number"),
        ("AIP_PREDICT_ROUTE", "predict", "AIP_PREDICT_ROUTE is 'predict'; it takes a path, such as /predict"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable_and_what_it_takes(variable: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read({variable: text})
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("variable", "service"), [("NBSERVE_PORT", "nbserve"), ("NBSERVE_METRICS_PORT", "nbserve-metrics")]
)
def test_what_kubernetes_writes_into_a_port_is_told_with_the_way_out(variable: str, service: str) -> None:
    with pytest.raises(ConfigError, match=f"for a Service named {service}. Set enableServiceLinks: false"):
        read({variable: "tcp://10.0.0.1:8080"})


def test_vertex_decides_where_it_asks() -> None:
    told = read({"NBSERVE_PORT": "8080", "AIP_HTTP_PORT": "7080", "AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/p"})
    assert (told.server, told.routes) == ({"port": 7080}, PlatformRoutes("/h", "/p"))


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("NBSERVE_WORKER", "NBSERVE_WORKERS"),
        ("NBSERVE_BATCH_SIZE", "NBSERVE_MAX_BATCH_SIZE"),
        ("NBSERVE_MAX_BATCHSIZE", "NBSERVE_MAX_BATCH_SIZE"),
        ("nbserve_workers", "NBSERVE_WORKERS"),
        ("NBSERVE_BUNDLES", "NBSERVE_BUNDLE"),
        ("NBSERVE_METRIC_PORT", "NBSERVE_METRICS_PORT"),
    ],
)
def test_a_variable_that_looks_like_a_setting_is_told(variable: str, meant: str) -> None:
    assert read({variable: "3"}).warnings == (f"{variable} is no setting; did you mean {meant}?",)


def test_the_variables_of_others_are_nobodys_business() -> None:
    others = dict.fromkeys(OTHERS, "1")
    links = {
        "NBSERVE_DIGITS_PORT": "tcp://10.0.0.1:80",
        "NBSERVE_SERVICE_HOST": "10.0.0.1",
        "NBSERVE_SERVICE_PORT": "80",
        "NBSERVE_SERVICE_PORT_METRICS": "80",
        "NBSERVE_PORT_8080_TCP": "tcp://10.0.0.1:80",
        "NBSERVE_PORT_8080_TCP_PORT": "8080",
        "NBSERVE_METRICS_PORT_8082_TCP_ADDR": "10.0.0.1",
    }
    unlike = {"NBSERVE_DOCKER_CONTEXT": "x", "NBSERVETTE": "1", "WORKERS": "2"}
    assert read({**others, **links, **unlike}).warnings == ()


def test_all_variables_that_are_read_anywhere_are_known() -> None:
    known = set(OTHERS) | {
        f"NBSERVE_{field.name.upper()}"
        for config in (EndpointConfig, ServerConfig)
        for field in dataclasses.fields(config)
    }
    files = [
        path for path in (ROOT / "nbserve").rglob("*") if path.is_file() and path.suffix in ("", ".py", ".yaml", ".md")
    ]
    found = {name for path in files for name in re.findall(r"\bNBSERVE_[A-Z_]*[A-Z]\b", path.read_text())}
    assert found - known == set(), "what is no setting belongs into environment.OTHERS"


def test_a_token_is_given_as_it_is_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert management_token({}) is None
    assert management_token({"NBSERVE_MANAGEMENT_TOKEN": "", "NBSERVE_MANAGEMENT_TOKEN_FILE": ""}) is None
    assert management_token({"NBSERVE_MANAGEMENT_TOKEN": f" {TOKEN}"}) == TOKEN
    assert management_token({"NBSERVE_MANAGEMENT_TOKEN_FILE": str(file)}) == TOKEN


@pytest.mark.parametrize("token", ["short-one", "a token of several words", "t\u00f6ken-0123456789abcdef"])
def test_a_token_that_is_none_is_refused_without_being_shown(token: str, tmp_path: Path) -> None:
    file = tmp_path / "named"
    file.write_text(token)
    for environ in ({"NBSERVE_MANAGEMENT_TOKEN": token}, {"NBSERVE_MANAGEMENT_TOKEN_FILE": str(file)}):
        with pytest.raises(ConfigError, match=f"{LEAST_TOKEN} or more ASCII") as raised:
            management_token(environ)
        assert next(iter(environ)) in str(raised.value)
        assert token not in str(raised.value)


def test_a_token_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for environ, said in (
        ({"NBSERVE_MANAGEMENT_TOKEN_FILE": str(tmp_path / "none")}, "cannot be read: No such file"),
        ({"NBSERVE_MANAGEMENT_TOKEN_FILE": str(tmp_path)}, "cannot be read: Is a directory"),
        ({"NBSERVE_MANAGEMENT_TOKEN_FILE": str(empty)}, "takes 16 or more"),
        ({"NBSERVE_MANAGEMENT_TOKEN_FILE": str(empty), "NBSERVE_MANAGEMENT_TOKEN": TOKEN}, "both set"),
    ):
        with pytest.raises(ConfigError, match=said):
            management_token(environ)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_management_on_loopback_needs_no_token_of_ones_own(host: str) -> None:
    check_management(ServerConfig(management_host=host), None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "digits.example"])
def test_management_that_others_can_reach_needs_a_token(host: str) -> None:
    check_management(ServerConfig(management_host=host), TOKEN)
    with pytest.raises(ConfigError, match="NBSERVE_MANAGEMENT_TOKEN_FILE"):
        check_management(ServerConfig(management_host=host), None)
