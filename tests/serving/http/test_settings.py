"""Settings: their variables, their limits, and the messages about invalid values."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.http.settings import SettingError, Settings
from tools.service_process import ROOT

OPERATIONS = ROOT / "docs/operations.md"
INVALID = {
    "LOAD_FOLDER": ["/nowhere", str(OPERATIONS)],
    "MODEL": [
        "a.onnx,b.onnx",
        "digits=a.onnx,b.onnx",
        "digits=a.onnx,digits=b.onnx",
        "digits=,letters=b.onnx",
        "digits=a.onnx,",
        "my digits=a.onnx",
        "../digits=a.onnx",
    ],
    "API_TOKEN": ["", " \n", "two words", "sch\u00f6n", "a\x07b", "x" * 10_000],
    "CORS_ORIGINS": [
        "a.example",
        "localhost:3000",
        "https://a.example/app",
        "https://a.example?x=1",
        "https://user@a.example",
        "https://*.a.example",
        "file:///tmp/page.html",
        "*, https://a.example",
    ],
    "DEVICE": ["gpu", "CPU"],
    "PUBLIC_KEY": ["/nothing/key.pub", "/"],
    "MODEL_SHA256": ["abc", "sha256:" + "0" * 64, "0" * 64 + ",1"],
    "WORKERS": ["0", "two", "1.5", "1000000"],
    "THREADS": ["0", "-1", "two", "1000000"],
    "MAX_SHEET_IMAGES": ["0", "many"],
    "MAX_ARRAY_IMAGES": ["0", "1e99"],
    "MAX_BODY_BYTES": ["0", "32MB", "1000"],
    "MAX_JSON_BYTES": ["0", "4MB", "40000000"],
    "MAX_REQUESTS": ["0", "inf"],
    "MAX_WAITING_IMAGES": ["0", ".5"],
    "MAX_CONNECTIONS": ["0", "many"],
    "MAX_RESPONSE_BYTES": ["0", "1 GiB"],
    "MAX_TOTAL_RESPONSE_BYTES": ["0", "1000"],
    "HEAD_TIMEOUT_SECONDS": ["0", "inf"],
    "RESPONSE_TIMEOUT_SECONDS": ["-5", "five"],
    "TIMEOUT_SECONDS": ["0", "-1", "nan", "inf", "1e9", "1m"],
    "PROTOCOLS": ["images,grpc", "none,images", "OpenAI"],
    "PUBLIC_IMAGES": ["2", "yes please"],
    "ACCESS_LOG": ["2", "loud"],
    "LOG_FORMAT": ["JSON", "xml"],
    "TRACES_ENDPOINT": ["collector", "collector:4318", "grpc://collector:4317", "http://collector:4318"],
    "TRACES_SHARE": ["-0.1", "2", "nan"],
}


@pytest.fixture(autouse=True)
def remove_settings(monkeypatch):
    """Removes all variables of the service from the environment."""
    for name in os.environ:
        if name.startswith("MNIST_GAN_"):
            monkeypatch.delenv(name)


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    """Reads the settings with these environment variables, given without their prefix."""
    for name, value in variables.items():
        monkeypatch.setenv(f"MNIST_GAN_{name}", value)
    return Settings.from_environment()


def test_the_documentation_lists_every_setting_with_its_default(monkeypatch):
    rows = [line.split(" | ") for line in OPERATIONS.read_text().splitlines() if line.startswith("| `MNIST_GAN_")]
    documented = {name.strip("| `"): default.strip("`") for name, default, *_ in rows}
    assert documented.keys() == Settings.variables().keys()
    for name, default in documented.items():
        if default not in ("none", "the CPUs that the service may use; 2 for a GPU") and not default.startswith(
            "newest"
        ):
            monkeypatch.setenv(name, default)
    assert Settings.from_environment() == Settings.model_construct()


def test_every_setting_has_a_test_of_invalid_values():
    assert {f"MNIST_GAN_{name}" for name in INVALID} == Settings.variables().keys()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in INVALID.items() for value in values])
def test_an_invalid_value_is_rejected_with_one_line_that_names_the_variable(monkeypatch, name, value):
    if name == "API_TOKEN" and "\x00" in value:
        pytest.skip("no environment variable can hold it")
    with pytest.raises(SettingError) as raised:
        read(monkeypatch, **{name: value})
    (line,) = str(raised.value).splitlines()
    assert f"MNIST_GAN_{name}" in line
    if name == "API_TOKEN":
        assert not value.strip() or value.strip() not in line
    else:
        assert value in line


def test_loading_models_needs_a_token(monkeypatch, tmp_path):
    with pytest.raises(SettingError, match="MNIST_GAN_LOAD_FOLDER needs MNIST_GAN_API_TOKEN"):
        read(monkeypatch, LOAD_FOLDER=str(tmp_path))
    assert read(monkeypatch, API_TOKEN="secret").load_folder == tmp_path


def test_each_invalid_variable_has_its_own_line(monkeypatch):
    with pytest.raises(SettingError) as raised:
        read(monkeypatch, WORKERS="none", THREADS="0", TIMEOUT_SECONDS="soon")
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == [
        "MNIST_GAN_WORKERS",
        "MNIST_GAN_THREADS",
        "MNIST_GAN_TIMEOUT_SECONDS",
    ]


def test_white_space_around_a_value_is_removed(monkeypatch):
    settings = read(monkeypatch, API_TOKEN=" s3cret\n", WORKERS=" 2 ", DEVICE="cpu\n")
    assert (settings.api_token, settings.workers, settings.device) == ("s3cret", 2, "cpu")


def test_an_empty_variable_counts_as_unset(monkeypatch):
    assert read(monkeypatch, WORKERS="", CORS_ORIGINS=" ", TRACES_ENDPOINT="") == Settings.model_construct()


def test_printed_settings_do_not_contain_the_token(monkeypatch):
    settings = read(monkeypatch, API_TOKEN="s3cret")
    assert "s3cret" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("a.onnx", {"mnist-gan": "a.onnx"}),
        ("mnist-gan:latest", {"mnist-gan": "mnist-gan:latest"}),
        ("digits=a.onnx", {"digits": "a.onnx"}),
        (
            "digits=a.onnx, letters = runs/lr=1/b.onnx,stored=mnist-gan:latest",
            {"digits": "a.onnx", "letters": "runs/lr=1/b.onnx", "stored": "mnist-gan:latest"},
        ),
    ],
)
def test_models_are_one_file_or_tag_or_a_list_with_names(monkeypatch, text, models):
    assert list(read(monkeypatch, MODEL=text).model.items()) == list(models.items())


def test_the_path_of_an_existing_file_is_one_model_whatever_characters_it_has(monkeypatch, tmp_path):
    file = tmp_path / "digits=a.onnx,letters=b.onnx"
    file.touch()
    assert read(monkeypatch, MODEL=str(file)).model == {"mnist-gan": str(file)}


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("null", ("null",)),
        ("HTTPS://A.Example/", ("https://a.example",)),
        ("https://a.example:443,http://a.example:80", ("https://a.example", "http://a.example")),
        ("https://a.example:8443 http://127.0.0.1:3000", ("https://a.example:8443", "http://127.0.0.1:3000")),
        ("https://a.example, https://A.example:443/", ("https://a.example",)),
        ("https://b\u00fccher.example", ("https://xn--bcher-kva.example",)),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("chrome-extension://abcdef", ("chrome-extension://abcdef",)),
    ],
)
def test_origins_are_written_as_browsers_send_them(monkeypatch, text, origins):
    assert read(monkeypatch, CORS_ORIGINS=text).cors_origins == origins


@pytest.mark.parametrize(
    ("name", "suggestion"), [("TIMEOUT", None), ("WORKER", "MNIST_GAN_WORKERS"), ("APITOKEN", "MNIST_GAN_API_TOKEN")]
)
def test_an_unknown_variable_is_reported_without_its_value(monkeypatch, name, suggestion):
    (warning,) = read(monkeypatch, **{name: "s3cret"}).warnings()
    assert warning.startswith(f"MNIST_GAN_{name} ")
    assert "s3cret" not in warning
    assert suggestion is None or warning.endswith(f"did you mean {suggestion}?")


@pytest.mark.parametrize(
    "name",
    [
        "DATA",
        "IMAGE",
        "CONTAINER_BASE",
        "TEST_DEVICE",
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_3000_TCP",
        "PORT_3000_TCP_ADDR",
        "PORT_3000_TCP_PORT",
        "PORT_3000_TCP_PROTO",
        "CANARY_SERVICE_HOST",
        "CANARY_PORT_80_TCP_ADDR",
    ],
)
def test_variables_of_other_programs_are_not_reported(monkeypatch, name):
    assert not [*read(monkeypatch, **{name: "1"}).warnings()]


def test_a_fraction_of_traces_without_a_collector_is_reported(monkeypatch):
    (warning,) = read(monkeypatch, TRACES_SHARE="0.5").warnings()
    assert "MNIST_GAN_TRACES_SHARE has no effect without MNIST_GAN_TRACES_ENDPOINT" in warning


def test_several_hashes_of_models_are_separated_by_commas(monkeypatch):
    assert read(monkeypatch, MODEL_SHA256=f"{'A' * 64}, {'1' * 64}").model_sha256 == ("a" * 64, "1" * 64)


def test_public_images_without_images_are_reported(monkeypatch):
    (warning,) = read(monkeypatch, PUBLIC_IMAGES="1", PROTOCOLS="openai").warnings()
    assert "MNIST_GAN_PUBLIC_IMAGES has no effect without images in MNIST_GAN_PROTOCOLS" in warning


@pytest.mark.parametrize(
    ("text", "protocols"),
    [("none", ()), ("images", ("images",)), ("openai, images,openai", ("openai", "images")), ("", None)],
)
def test_protocols_are_a_list_or_none(monkeypatch, text, protocols):
    default = Settings.model_construct().protocols
    assert read(monkeypatch, PROTOCOLS=text).protocols == (default if protocols is None else protocols)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_invalid_settings_abort_the_start_with_one_line_each(tmp_path, log_format):
    ended = subprocess.run(
        [Path(sys.executable).parent / "bentoml", "serve"],
        cwd=ROOT,
        env=os.environ
        | {
            "BENTOML_HOME": str(tmp_path),
            "MNIST_GAN_API_TOKEN": "my s3cret",
            "MNIST_GAN_LOG_FORMAT": log_format,
            "MNIST_GAN_WORKERS": "0",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "s3cret" not in ended.stdout + ended.stderr
    lines = ended.stderr.splitlines()
    if log_format == "json":
        lines = [json.loads(line)["message"] for line in lines]
    assert [re.search("MNIST_GAN_[A-Z_]+", line)[0] for line in lines] == ["MNIST_GAN_API_TOKEN", "MNIST_GAN_WORKERS"]
