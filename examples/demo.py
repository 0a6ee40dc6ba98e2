"""Trains a small GAN, exports and serves it, and requests a grid of digits over HTTP. `make demo` runs it.

Everything is written to demo/, which is deleted first: run/, generator.onnx, parity.json, grid.png, service.log.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from models.common.commands import command
from models.onnx_file.store import SHIPPED

DEMO = Path("demo")
BIN = Path(sys.executable).parent
MINUTES = 3
READY_SECONDS = 120


@command("demo")
def main() -> None:
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()

    print(f"""This demo trains a GAN on handwritten digits, exports it and serves it, in about five minutes.
While it trains, {DEMO}/run/samples/ shows its digits after each epoch.""")

    say(f"1. Train a small class-conditional GAN for {MINUTES} minutes.")
    if train("mnist") == os.EX_NOINPUT:
        say("MNIST cannot be downloaded here. Training on the 1,797 digits of scikit-learn instead.")
        train("uci-digits")

    say("2. Export its generator to ONNX and check that the file's output matches PyTorch's.")
    model = DEMO / "generator.onnx"
    # The demo does not register its model, because `make serve` and `bentoml build` would then use it in every clone.
    # On a slow machine, three minutes may be too short for a generator that passes the quality check.
    options = ("--name", "demo", "--no-register", "--allow-low-quality")
    run("export-onnx", DEMO / "run", "--out", model, "--report", DEMO / "parity.json", *options)

    say("3. Serve the file and request the ten digits, eight times each.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (DEMO / "service.log").open("w") as log:
        service = subprocess.Popen(
            [BIN / "bentoml", "serve", "--port", str(port)],
            env=os.environ | {"MNIST_GAN_MODEL": str(model.resolve())},
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_ready(service, f"http://127.0.0.1:{port}/readyz", model)
            query = {"n": 80, "seed": 1, "labels": "0123456789", "columns": 10}
            generate(f"http://127.0.0.1:{port}/generate", query, DEMO / "grid.png")
        finally:
            service.terminate()
            service.wait()

    say(f"""Done. Open {DEMO}/grid.png to see the digits, and {DEMO}/run/samples.gif to see how they developed.

Serve this model on port 3000, and request digits from a second terminal:
  MNIST_GAN_MODEL={model} make serve
  {curl("localhost:3000/generate", query, "digits.png")}

Next:
  .venv/bin/sample {model} --n 1000 --out digits.npz   write 1,000 images to a file
  .venv/bin/train --preset fast --minutes 10 --out runs/a          train for longer
  .venv/bin/train --help                                           list the options

`make serve` without MNIST_GAN_MODEL serves {default_model()}.
It serves the demo's model after this command, which registers it in the BentoML model store:
  .venv/bin/export-onnx {DEMO}/run --out {model} --name demo""")


def default_model() -> str:
    """Returns a description of the model that the service chooses if MNIST_GAN_MODEL is not changed."""
    from serving.http.model_file import model_file  # takes seconds to import
    from serving.http.settings import SETTINGS

    path = model_file(next(iter(SETTINGS.models.values())))
    if os.environ.get("MNIST_GAN_MODEL"):
        return f"{path}, because MNIST_GAN_MODEL is set in your shell"
    if path == SHIPPED:
        return f"{path.stem}, the pretrained generator"
    return f"the newest model in the BentoML model store, {path}"


def train(dataset: str) -> int:
    """Trains and returns the exit code: 0, or EX_NOINPUT if the data set cannot be downloaded."""
    options = ("--preset", "fast", "--dataset", dataset, "--minutes", MINUTES, "--out", DEMO / "run")
    return run("train", *options, allowed=(0, os.EX_NOINPUT))


def run(command: str, *arguments: object, allowed: tuple[int, ...] = (0,)) -> int:
    """Prints and runs a command of this project. Exits if its exit code is not one of `allowed`, else returns it."""
    words = [command, *map(str, arguments)]
    print(f"$ {shlex.join(words)}", flush=True)
    code = subprocess.run([BIN / command, *words[1:]]).returncode
    if code not in allowed:
        sys.exit(f"demo: {command} failed with exit code {code}")
    return code


def wait_until_ready(service: subprocess.Popen, url: str, model: Path) -> None:
    """Blocks until the service is ready; exits if it has ended or needs more than READY_SECONDS."""
    print(f"$ MNIST_GAN_MODEL={model} bentoml serve", flush=True)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"demo: the service did not become ready in {READY_SECONDS} s; see {DEMO}/service.log")


def generate(url: str, query: dict[str, object], out: Path) -> None:
    """Sends the request, saves the picture, and prints the equivalent curl command."""
    print(f"$ {curl(url, query, out)}", flush=True)
    request = urllib.request.Request(url, json.dumps(query).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        out.write_bytes(response.read())
        print(f"{out}: {out.stat().st_size:,} bytes, seed {response.headers['X-Seed']}")


def curl(url: str, query: dict[str, object], out: Path | str) -> str:
    """Returns the curl command that sends the request and saves the picture."""
    return f"curl -X POST {url} -H 'content-type: application/json' -d {shlex.quote(json.dumps(query))} -o {out}"


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
