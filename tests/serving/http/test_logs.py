"""Logs and traces of the real server."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tools.service_process import ROOT, serving


def json_lines(folder: Path) -> list[dict]:
    """Returns all lines of stdout and stderr, which must all be JSON."""
    return [json.loads(line) for line in (folder / "service.log").read_text().splitlines()]


def send_invalid_request(client: httpx.Client) -> None:
    """Sends a request for which uvicorn logs a warning."""
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(b"INVALID\r\n\r\n")
        connection.recv(1_000)


def test_by_default_requests_are_not_logged(files, tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(files["conditional"])) as (client, _):
        assert client.post("/generate").status_code == 200
        assert client.post("/generate", json={"n": 0}).status_code == 400
        send_invalid_request(client)
    log = (tmp_path / "service.log").read_text()
    assert "serving" in log
    assert "/generate" not in log
    assert log.count("Invalid HTTP request received") == 1


def test_with_json_every_line_is_an_object_and_each_request_is_logged_with_its_id(files, tmp_path):
    settings = {"MNIST_GAN_ACCESS_LOG": "1", "MNIST_GAN_LOG_FORMAT": "json", "MNIST_GAN_NO_SETTING": "1"}
    with serving(tmp_path, MNIST_GAN_MODEL=str(files["conditional"]), **settings) as (client, _):
        with_id = client.post("/generate", json={"n": 3}, headers={"X-Request-Id": "order-66"})
        rejected = client.post("/generate", json={"n": 0}, headers={"X-Request-Id": 'a"b c'})
        client.get("/livez")
        send_invalid_request(client)
    messages = [line["message"] for line in json_lines(tmp_path)]
    assert len([message for message in messages if "Invalid HTTP request received" in message]) == 1
    assert len([message for message in messages if message.startswith("MNIST_GAN_NO_SETTING is not a setting")]) == 1
    assert any("Starting production HTTP BentoServer" in message for message in messages)
    first, second = [line for line in json_lines(tmp_path) if "status" in line]
    assert with_id.headers["x-request-id"] == first["request_id"] == "order-66"
    assert (first["method"], first["path"], first["status"]) == ("POST", "/generate", 200)
    assert first["bytes"] == len(with_id.content)
    assert rejected.headers["x-request-id"] == second["request_id"] != 'a"b c'
    assert second["status"] == 400


OTHER_OUTPUT = """
import logging, sys, threading, warnings
from serving.http import logs
logging.basicConfig(stream=sys.stdout)
logs.configure(json_lines=True)
logs.configure(json_lines=True)
print("printed")
print("half", end="")
print(" a line")
sys.stderr.write("to stderr\\n")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
logging.getLogger("circus").warning("of circus")
raise ValueError("the end")
"""


def test_with_json_printed_text_warnings_and_tracebacks_are_objects_too():
    done = subprocess.run([sys.executable, "-c", OTHER_OUTPUT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    printed, half, warning, thread, circus, end = map(json.loads, done.stdout.splitlines())
    assert (printed["level"], printed["message"]) == ("info", "printed")
    assert half["message"] == "half a line"
    assert (warning["level"], circus["message"]) == ("warning", "of circus")
    assert "UserWarning: a warning" in warning["message"]
    assert "ZeroDivisionError" in thread["exception"]
    assert (end["level"], end["message"]) == ("critical", "ValueError: the end")
    assert "Traceback" in end["exception"]
    (error,) = map(json.loads, done.stderr.splitlines())
    assert (error["level"], error["message"]) == ("error", "to stderr")


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Runs an OpenTelemetry collector. Yields its URL and the list of received export requests."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
    server.shutdown()


@pytest.mark.slow
def test_traces_keep_the_trace_id_of_the_client_and_are_exported_before_the_service_stops(files, tmp_path):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with collector() as (url, received):
        settings = {"MNIST_GAN_MODEL": str(files["conditional"]), "MNIST_GAN_TRACES_ENDPOINT": url}
        with serving(tmp_path, **settings) as (client, _):
            client.post("/dataset", json={"n": 3}, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        names = span_names(received, trace)
    assert any("/dataset" in name for name in names)


def span_names(received: list[ExportTraceServiceRequest], trace: str) -> list[str]:
    """Returns the names of the spans of a trace."""
    scopes = (scope for request in received for resource in request.resource_spans for scope in resource.scope_spans)
    return [span.name for scope in scopes for span in scope.spans if span.trace_id.hex() == trace]
