"""The OpenAPI document at /docs.json and the Swagger page at /."""

import tomllib
from collections.abc import Iterator
from dataclasses import fields

import httpx
import pytest

from models.onnx_file.card import Card
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from serving.http.openapi import TAGS, specification
from serving.http.protocols import enabled
from serving.http.settings import Settings
from tests.serving.http.renamed_classes import write_with_class_names
from tools.service_process import ROOT, serving

FREE_PATHS = (
    *("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"),
    *("/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"),
)
LONG_NAMES = ("t-shirt", "ankle boot", "a, b", "10", "7up", "x" * 300, "café", " dress", "ab", "bag")


@pytest.fixture(scope="module")
def long_names_client(tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a server with classes that all have longer names than one character."""
    folder = tmp_path_factory.mktemp("long-names")
    write_with_class_names(folder / "clothes.onnx", LONG_NAMES)
    with serving(folder, MNIST_GAN_MODEL=str(folder / "clothes.onnx")) as (client, _):
        yield client


@pytest.fixture(scope="module")
def small_limits_client(tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a server that allows few images in a response."""
    limits = {"MNIST_GAN_MAX_SHEET_IMAGES": "3", "MNIST_GAN_MAX_ARRAY_IMAGES": "5"}
    with serving(tmp_path_factory.mktemp("small-limits"), MNIST_GAN_MODEL=str(SHIPPED), **limits) as (client, _):
        yield client


@pytest.fixture(scope="module")
def shipped_card() -> Card:
    return Generator.open(SHIPPED).card


def operations(document: dict) -> dict[tuple[str, str], dict]:
    """Returns the operations of an OpenAPI document by path and method."""
    return {(path, method): entry for path, item in document["paths"].items() for method, entry in item.items()}


def check_examples(client: httpx.Client) -> None:
    """Sends every example, and compares the responses with their descriptions."""
    for (path, method), operation in operations(client.get("/docs.json").json()).items():
        content = operation.get("requestBody", {}).get("content", {})
        body = content["application/json"]["example"] if content else None
        values = {p["name"]: p["example"] for p in operation.get("parameters", []) if "example" in p}
        query = {name: value for name, value in values.items() if f"{{{name}}}" not in path}
        response = client.request(method, path.format(**values), json=body, params=query)
        described = operation["responses"]["200"]
        assert response.status_code == 200, (path, response.text)
        if "content" in described:
            assert response.headers["content-type"] in described["content"]
        if "headers" in described:
            names = {name.lower() for name in described["headers"]}
            assert {"x-seed", "x-model", "x-model-bytes", "cache-control", "etag"} & set(response.headers) == names


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_every_example_is_a_valid_request(clients, kind):
    check_examples(clients[kind])
    assert ("/write" in clients[kind].get("/docs.json").json()["paths"]) == (kind == "conditional")


def test_every_example_is_valid_for_classes_with_long_names_and_write_is_absent(long_names_client):
    check_examples(long_names_client)
    assert "/write" not in long_names_client.get("/docs.json").json()["paths"]


def test_every_example_is_within_the_limits_of_the_settings(small_limits_client):
    check_examples(small_limits_client)


def test_every_route_of_the_service_is_described(conditional_client):
    paths = conditional_client.get("/docs.json").json()["paths"]
    routes = {"/generate", "/dataset", "/decode", "/write", "/interpolate", "/card", "/models"}
    described = [route for protocol in enabled(Settings()) for route in protocol.routes if route.operation(None)]
    assert set(paths) == routes | {"/livez", "/readyz", "/metrics"} | {route.template for route in described}
    assert list(paths["/generate"]["post"]["responses"]["200"]["content"]) == ["image/png"]


def test_the_token_is_required_for_the_routes_and_not_for_the_free_paths(shipped_card, monkeypatch):
    monkeypatch.setattr("serving.http.openapi.SETTINGS", Settings(api_token="secret"))
    document = specification(shipped_card)
    assert "security" not in document
    assert set(document["components"]["securitySchemes"]) == {"token"}
    for (path, _), operation in operations(document).items():
        free = path in FREE_PATHS
        assert operation.get("security") == (None if free else [{"token": []}]), path
        assert ("401" in operation["responses"]) == (not free)


def test_loading_a_model_is_described_if_a_setting_enables_it(shipped_card, monkeypatch, tmp_path):
    assert "/models/{name}/load" not in specification(shipped_card)["paths"]
    enabled = Settings(api_token="secret", load_folder=str(tmp_path), model="digits=a.onnx,letters=b.onnx")
    monkeypatch.setattr("serving.http.openapi.SETTINGS", enabled)
    operation = specification(shipped_card)["paths"]["/models/{name}/load"]["post"]
    assert operation["parameters"][0]["schema"]["enum"] == ["digits", "letters"]
    assert operation["security"] == [{"token": []}]


def test_a_service_without_a_token_describes_no_security(shipped_card):
    document = specification(shipped_card)
    assert "securitySchemes" not in document["components"]
    assert not any("security" in operation for operation in operations(document).values())


def test_every_operation_has_one_described_tag_and_a_summary(shipped_card):
    document = specification(shipped_card)
    tags = set(TAGS) | {protocol.title for protocol in enabled(Settings())}
    assert {tag["name"] for tag in document["tags"]} == tags
    for operation in operations(document).values():
        assert len(operation["tags"]) == 1
        assert set(operation["tags"]) < tags
        assert operation["summary"]


def test_the_version_is_the_version_of_the_project(shipped_card):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert specification(shipped_card)["info"]["version"] == project["version"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_schema_of_the_card_has_all_its_fields(shipped_card, method):
    document = specification(shipped_card)
    content = document["paths"]["/card"][method]["responses"]["200"]["content"]
    assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/Card"}}}
    schema = document["components"]["schemas"]["Card"]
    assert set(schema["properties"]) == {field.name for field in fields(Card)}
    assert schema["properties"]["dataset"] == {"$ref": "#/components/schemas/CardDataset"}
    assert set(schema["required"]) == set(schema["properties"])


def test_every_reference_of_the_document_exists(shipped_card):
    document = specification(shipped_card)

    def references(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= names


def test_the_swagger_page_loads_nothing_from_other_sites(conditional_client):
    page = conditional_client.get("/")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    assert "//" not in page.text.replace("<!DOCTYPE", "")
