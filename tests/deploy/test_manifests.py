"""What is in deploy/ is what Kubernetes takes, and speaks of the service as it is."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.http.errors import error_code
from serving.http.settings import Settings
from tools.service_process import serving

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICE = ["base", "overlays/gpu", "overlays/keda"]
KUSTOMIZE = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
SCALED_OBJECT = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "spec": {
            "type": "object",
            "required": ["scaleTargetRef", "triggers"],
            "additionalProperties": False,
            "properties": {
                "scaleTargetRef": {"type": "object", "required": ["name"]},
                "minReplicaCount": {"type": "integer"},
                "maxReplicaCount": {"type": "integer"},
                "pollingInterval": {"type": "integer"},
                "triggers": {
                    "type": "array",
                    "items": {
                        "required": ["type", "metadata"],
                        "additionalProperties": False,
                        "properties": {
                            "type": {"enum": ["prometheus", "cpu"]},
                            "metricType": {"enum": ["AverageValue", "Value", "Utilization"]},
                            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                        },
                    },
                },
            },
        },
    },
}
"""The fields that ours uses, as KEDA documents them: its own schema comes with its operator."""


def build(folder: str) -> dict[str, dict[str, Any]]:
    """The resources that Kustomize makes, by their kind."""
    if not shutil.which(KUSTOMIZE[0]):
        pytest.skip("neither kustomize nor kubectl is installed")
    command = [*KUSTOMIZE, DEPLOY / "kubernetes" / folder]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    resources = list(yaml.safe_load_all(made))
    assert len({resource["kind"] for resource in resources}) == len(resources)
    return {resource["kind"]: resource for resource in resources}


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return only


def queries() -> list[str]:
    """Of the dashboard, the alerts and KEDA's trigger."""
    dashboard = json.loads((DEPLOY / "grafana/mnist-gan.json").read_text())
    (rules,) = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    scaled = yaml.safe_load((DEPLOY / "kubernetes/overlays/keda/scaled-object.yaml").read_text())
    return [
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
        *(rule["expr"] for rule in rules["rules"]),
        *(trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"] if trigger["type"] == "prometheus"),
    ]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory) -> dict[str, set[str]]:
    """The labels of each series in /metrics, after a request that is answered and one that is refused."""
    with serving(tmp_path_factory.mktemp("service")) as (client, _):
        client.post("/generate", json={"n": 4}).raise_for_status()
        assert client.post("/generate", json={"n": -1}).status_code == 400
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.mark.parametrize("folder", [*SERVICE, "training"])
def test_kubernetes_takes_what_kustomize_makes(folder):
    for kind, resource in build(folder).items():
        if kind == "ScaledObject":
            jsonschema.validate(resource, SCALED_OBJECT)
        else:
            kubernetes_validate.validate(resource, "1.34", strict=True)


@pytest.mark.parametrize("folder", [*SERVICE, "training"])
def test_a_pod_may_do_nothing_that_it_need_not(folder):
    resources = build(folder)
    workload = resources.get("Deployment") or resources["Job"]
    pod, only = workload["spec"]["template"]["spec"], container(workload)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"] for mount in only["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == mounted
    assert only["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in only["resources"]["limits"]


@pytest.mark.parametrize("folder", SERVICE)
def test_every_selector_finds_the_pods_and_every_name_the_deployment(folder):
    resources = build(folder)
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        resources["Deployment"]["spec"]["selector"]["matchLabels"],
        resources["Service"]["spec"]["selector"],
        resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],  # an empty one would be every pod's
    ):
        assert selector
        assert selector.items() <= labels
    scaler = resources["ScaledObject" if folder.endswith("keda") else "HorizontalPodAutoscaler"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == resources["Deployment"]["metadata"]["name"]
    assert ("HorizontalPodAutoscaler" in resources) != ("ScaledObject" in resources), "two scalers would fight"
    ports = {port["name"] for port in container(resources["Deployment"])["ports"]}
    assert {port["targetPort"] for port in resources["Service"]["spec"]["ports"]} <= ports
    assert {port["port"] for rule in resources["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]} <= ports


@pytest.mark.parametrize("folder", SERVICE)
def test_the_settings_that_a_manifest_names_exist(folder):
    named = {variable["name"] for variable in container(build(folder)["Deployment"])["env"]}
    ours = {name for name in named if name.startswith("MNIST_GAN_")}
    assert ours
    assert ours <= Settings.variables().keys()


def test_a_request_can_end_before_the_pod_does():
    deployment = build("base")["Deployment"]
    slept = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > slept + Settings().timeout_seconds


def test_the_service_answers_where_it_is_probed_and_scraped(tmp_path):
    deployment = build("base")["Deployment"]
    only = container(deployment)
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    paths = {only[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {only[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {"http"}
    assert annotations["prometheus.io/port"] == str(only["ports"][0]["containerPort"])
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        for path in paths | {annotations["prometheus.io/path"]}:
            assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_what_the_service_exposes(query, exposed):
    nodes = []
    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "5m")), lambda node: nodes.append(node))
    series = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert series
    assert {one.name for one in series} <= exposed.keys()
    for one in series:
        assert {matcher.name for matcher in one.matchers.matchers} <= exposed[one.name]
    grouped = {
        label
        for node in nodes
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier
        for label in node.modifier.labels
    }
    assert all(grouped <= exposed[one.name] for one in series)


def test_the_alert_of_overload_names_a_reason_that_there_is():
    rules = (DEPLOY / "prometheus/alerts.yaml").read_text()
    assert 'reason="overloaded"' in rules
    assert error_code(429) == "overloaded"
