"""The files in deploy/ are valid, and match the service: its settings, paths, ports and metrics."""

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
"""JSON schema of the ScaledObject fields that our manifest uses. KEDA ships its own schema only with its operator."""


def build(folder: str) -> dict[str, dict[str, Any]]:
    """Builds a folder with Kustomize. Returns the resources by kind."""
    if not shutil.which(KUSTOMIZE[0]):
        pytest.skip("neither kustomize nor kubectl is installed")
    command = [*KUSTOMIZE, DEPLOY / "kubernetes" / folder]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    resources = list(yaml.safe_load_all(output))
    assert len({resource["kind"] for resource in resources}) == len(resources)
    return {resource["kind"]: resource for resource in resources}


def container(workload: dict[str, Any]) -> dict[str, Any]:
    """Returns the only container of a Deployment or Job."""
    (only_container,) = workload["spec"]["template"]["spec"]["containers"]
    return only_container


def queries() -> list[str]:
    """Returns all Prometheus queries of the dashboard, the alerts and the KEDA trigger."""
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
    """The label names of each series in /metrics, after one successful and one rejected request."""
    with serving(tmp_path_factory.mktemp("service")) as (client, _):
        client.post("/generate", json={"n": 4}).raise_for_status()
        assert client.post("/generate", json={"n": -1}).status_code == 400
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.mark.parametrize("folder", [*SERVICE, "training"])
def test_the_resources_conform_to_their_schemas(folder):
    for kind, resource in build(folder).items():
        if kind == "ScaledObject":
            jsonschema.validate(resource, SCALED_OBJECT)
        else:
            kubernetes_validate.validate(resource, "1.34", strict=True)


@pytest.mark.parametrize("folder", [*SERVICE, "training"])
def test_pods_run_without_privileges(folder):
    resources = build(folder)
    workload = resources.get("Deployment") or resources["Job"]
    pod, pod_container = workload["spec"]["template"]["spec"], container(workload)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod_container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"] for mount in pod_container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == mounted
    assert pod_container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in pod_container["resources"]["limits"]


@pytest.mark.parametrize("folder", SERVICE)
def test_selectors_match_the_pods_and_references_name_the_deployment(folder):
    resources = build(folder)
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        resources["Deployment"]["spec"]["selector"]["matchLabels"],
        resources["Service"]["spec"]["selector"],
        resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],  # an empty selector would match every pod
    ):
        assert selector
        assert selector.items() <= labels
    scaler = resources["ScaledObject" if folder.endswith("keda") else "HorizontalPodAutoscaler"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == resources["Deployment"]["metadata"]["name"]
    assert ("HorizontalPodAutoscaler" in resources) != ("ScaledObject" in resources), (
        "two autoscalers for one Deployment"
    )
    ports = {port["name"] for port in container(resources["Deployment"])["ports"]}
    assert {port["targetPort"] for port in resources["Service"]["spec"]["ports"]} <= ports
    assert {port["port"] for rule in resources["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]} <= ports


@pytest.mark.parametrize("folder", SERVICE)
def test_the_settings_that_a_manifest_names_exist(folder):
    names = {variable["name"] for variable in container(build(folder)["Deployment"])["env"]}
    settings = {name for name in names if name.startswith("MNIST_GAN_")}
    assert settings
    assert settings <= Settings.variables().keys()


def test_the_grace_period_is_longer_than_the_request_timeout():
    deployment = build("base")["Deployment"]
    delay = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > delay + Settings().timeout_seconds


def test_the_probed_and_scraped_paths_exist_and_need_no_token(tmp_path):
    deployment = build("base")["Deployment"]
    service = container(deployment)
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    paths = {service[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {service[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "http"
    }
    assert annotations["prometheus.io/port"] == str(service["ports"][0]["containerPort"])
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        for path in paths | {annotations["prometheus.io/path"]}:
            assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("query", queries())
def test_queries_use_only_metrics_and_labels_of_the_service(query, exposed):
    nodes = []
    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "5m")), lambda node: nodes.append(node))
    series = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert series
    assert {selector.name for selector in series} <= exposed.keys()
    for selector in series:
        assert {matcher.name for matcher in selector.matchers.matchers} <= exposed[selector.name]
    grouped = {
        label
        for node in nodes
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier
        for label in node.modifier.labels
    }
    assert all(grouped <= exposed[selector.name] for selector in series)


def test_the_overload_alert_uses_an_existing_error_code():
    rules = (DEPLOY / "prometheus/alerts.yaml").read_text()
    assert 'code="overloaded"' in rules
    assert error_code(429) == "overloaded"
