"""compose.yaml, the files of Prometheus and Grafana, and the dashboard; test_prometheus.py tries them."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import validator_for

from nbserve.config import EndpointConfig, ServerConfig
from nbserve.export import dashboard, kubernetes, monitoring
from nbserve.export.plan import METRICS_PORT, UID, Plan
from tests.export.plans import make_plan

PLANS = {"cpu": make_plan(workers=2), "gpu": make_plan("Big.Model", is_gpu=True, device="cuda:1", port=9000)}


@pytest.fixture(params=PLANS, name="plan")
def each_plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


def compose_of(plan: Plan) -> Any:
    return yaml.safe_load(monitoring.files(plan)["compose.yaml"])


def alerts_of(plan: Plan) -> list[Any]:
    return list(yaml.safe_load(monitoring.files(plan)["monitoring/alerts.yml"])["groups"][0]["rules"])


def test_the_same_plan_gives_the_same_files(plan: Plan) -> None:
    exported = monitoring.files(plan)
    assert exported == monitoring.files(plan)
    assert all(
        line.startswith("# ") for path, text in exported.items() if path[-1] == "l" for line in text.split("\n", 1)[:1]
    )


def test_compose_keeps_its_specification(plan: Plan) -> None:
    assert not compose_faults(compose_of(plan))


def test_the_specification_would_find_a_mistake() -> None:
    compose = compose_of(PLANS["cpu"])
    compose["services"]["endpoint"]["readonly"] = compose["services"]["endpoint"].pop("read_only")
    assert "readonly" in "".join(compose_faults(compose))


def compose_faults(compose: Any) -> list[str]:
    """What the JSON schema of the Compose specification finds; check-jsonschema brings it along."""
    path = files("check_jsonschema").joinpath("builtin_schemas", "vendor", "compose-spec.json")
    schema = json.loads(path.read_text(encoding="utf-8"))
    return [error.message for error in validator_for(schema)(schema).iter_errors(compose)]


def test_the_endpoint_runs_as_in_kubernetes(plan: Plan) -> None:
    endpoint = compose_of(plan)["services"]["endpoint"]
    assert endpoint["image"] == plan.image
    assert endpoint["user"] == f"{UID}:{UID}"
    assert endpoint["read_only"] is True
    assert endpoint["cap_drop"] == ["ALL"]
    assert endpoint["security_opt"] == ["no-new-privileges:true"]
    [tmp] = endpoint["tmpfs"]
    assert tmp.startswith("/tmp:")
    assert "exec" in tmp.split(":")[1].split(",")
    drain_s = int(endpoint["environment"]["NBSERVE_DRAIN_TIMEOUT_S"])
    assert plan.settings["response_timeout_s"] <= drain_s < int(endpoint["stop_grace_period"].removesuffix("s"))
    assert ("deploy" in endpoint) is plan.is_gpu
    if plan.is_gpu:
        assert endpoint["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2


def test_nothing_is_published_but_on_loopback(plan: Plan) -> None:
    services = compose_of(plan)["services"]
    published = [port for service in services.values() for port in service["ports"]]
    assert published == [f"127.0.0.1:{port}:{port}" for port in (plan.port, 9090, 3000)]


def test_whoever_reaches_grafana_can_only_look() -> None:
    settings = compose_of(PLANS["cpu"])["services"]["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"
    assert settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_images_of_others_are_pinned() -> None:
    services = compose_of(PLANS["cpu"])["services"]
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", services[name]["image"])


def test_what_compose_mounts_is_exported(plan: Plan) -> None:
    exported = monitoring.files(plan)
    mounts = [m for service in compose_of(plan)["services"].values() for m in service.get("volumes", [])]
    sources = [mount.split(":")[0].removeprefix("./") for mount in mounts if mount.startswith("./")]
    assert len(sources) == 5
    assert all(any(path == source or path.startswith(f"{source}/") for path in exported) for source in sources)
    home = compose_of(plan)["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert f"monitoring{home.removeprefix('/etc')}" in exported
    provider = yaml.safe_load(exported["monitoring/grafana/provisioning/dashboards/nbserve.yaml"])["providers"][0]
    assert home.startswith(provider["options"]["path"])


def test_prometheus_scrapes_the_endpoint_and_grafana_asks_prometheus(plan: Plan) -> None:
    exported = monitoring.files(plan)
    config = yaml.safe_load(exported["monitoring/prometheus.yml"])
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": [f"endpoint:{METRICS_PORT}"]}]
    source = yaml.safe_load(exported["monitoring/grafana/provisioning/datasources/prometheus.yaml"])["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


@settings(max_examples=40)
@given(name=st.text(min_size=1), image=st.text(min_size=1))
def test_any_name_and_image_come_back(name: str, image: str) -> None:
    plan = make_plan(name, image=image)
    compose = compose_of(plan)
    assert compose["name"] == kubernetes.name_of(plan)
    [rule] = [rule for rule in alerts_of(plan) if rule["alert"] == "NbserveDown"]
    assert json.loads(rule["expr"].partition("endpoint=")[2].removesuffix("})")) == name
    # As compose reads it: a dollar of its own stands for a variable.
    assert compose["services"]["endpoint"]["image"].replace("$$", "$") == image
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", compose["services"]["endpoint"]["image"])


def test_names_of_settings_in_compose_are_settings() -> None:
    fields = {*EndpointConfig.__dataclass_fields__, *ServerConfig.__dataclass_fields__}
    named = set(re.findall(r"NBSERVE_([A-Z_]+):", monitoring.files(PLANS["cpu"])["compose.yaml"]))
    assert {"DRAIN_TIMEOUT_S", "WORKERS"} <= named
    assert {name.lower() for name in named} <= fields


def test_the_dashboard_is_laid_out_without_gaps_or_overlaps() -> None:
    board = json.loads(dashboard.text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == len(dashboard.PANELS)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    rows = max(y for _, y in cells) + 1
    assert len(cells) == len(set(cells)) == 24 * rows
    assert {name["name"] for name in board["templating"]["list"]} == {"datasource", "endpoint"}
    assert all(panel["description"] and panel["title"] for panel in panels)


def test_the_dashboard_knows_metrics_that_there_are_and_no_other_variables() -> None:
    source = (Path(monitoring.__file__).parent.parent / "server" / "metrics.py").read_text()
    known = set(re.findall(r'"(nbserve_[a-z_]+)"', source))
    for query in queries():
        assert set(re.findall(r"\$\w+", query)) <= {"$endpoint", "$__rate_interval"}
        for name in re.findall(r"nbserve_[a-z_]+", query):
            assert {name, re.sub("_(bucket|sum|count|total)$", "", name)} & known, name


def queries() -> list[str]:
    panels = json.loads(dashboard.text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]
