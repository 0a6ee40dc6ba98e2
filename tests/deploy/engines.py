"""Engines that build and run the container image: docker, or buildah where there is no docker daemon."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from serving.http.container import BASE
from tools.service_process import ROOT

BENTOML = Path(sys.executable).parent / "bentoml"
STAND_IN = Path(os.environ.get("MNIST_GAN_CONTAINER_BASE", ROOT.parent / "shared/tools/container-base"))
"""Script that creates a base image where no container registry can be reached."""
PACKED = ROOT / "models/pretrained/mnist-fast.onnx"
"""Model that the tests register in the store, so that the image has another one than the default model."""
SHELLS = ("usr/bin/dash", "usr/bin/bash")
STORAGE = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker"}
ENTER = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
mount -t tmpfs tmpfs "$1/tmp" && mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev"
for shell in $2; do mount --bind /dev/null "$1/$shell"; done
root=$1 user=$3; shift 3
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"""
"""Shell script for buildah that does what a container engine does before it starts the command.

Arguments: root folder, shells to hide (one word), user, then environment variables and the command.
"""


def run(*command: object, **environment: str) -> str:
    """Runs a command in the root of the repository and returns its standard output."""
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Engine(ABC):
    """Context manager that builds the image on entry and removes it on exit."""

    image = "mnist-gan:test"
    bento = "mnist-gan:test-bento"

    def __init__(self, home: Path) -> None:
        self.environment = {"BENTOML_HOME": str(home)}

    def __enter__(self) -> "Engine":
        register = "from models.onnx_file.generator import Generator; from models.onnx_file.store import register; "
        run(sys.executable, "-c", f"{register}register(Generator.open({str(PACKED)!r}))", **self.environment)
        run(BENTOML, "build", **self.environment)
        containerize = ("containerize", "mnist-gan:latest", "--backend", type(self).__name__.lower())
        # The image is built and run on the host's network, so that no bridge is needed.
        run(BENTOML, *containerize, "--opt", "network=host", "-t", self.bento, **self.environment)
        options = ("--network=host", "--file=deploy/serving.Containerfile", f"--tag={self.image}")
        self.build(*options, f"--build-arg=BENTO={self.bento}", f"--build-arg=BASE={BASE}")
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Returns a description of the missing requirement; None if the engine can be used."""

    @abstractmethod
    def build(self, *options: str) -> None:
        """Builds the image from deploy/serving.Containerfile and BentoML's image."""

    @abstractmethod
    def remove(self) -> None:
        """Removes both images."""

    @abstractmethod
    def files(self) -> set[str]:
        """Returns the paths of all files in the image, relative to its root."""

    @cached_property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Configuration of the image: Entrypoint, User, Env and so on."""

    @abstractmethod
    def start(self, port: int, log: IO[str], **environment: str) -> subprocess.Popen:
        """Starts a container as it is deployed: with a read-only root, its own /tmp, and no access to its shells."""

    @abstractmethod
    def uids(self, service: subprocess.Popen, port: int) -> set[int]:
        """Returns the user ids of the processes in the container."""

    @abstractmethod
    def is_healthy(self, service: subprocess.Popen, port: int) -> bool:
        """Returns the result of the image's health check."""


class Docker(Engine):
    @classmethod
    def missing(cls) -> str | None:
        runs = shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True).returncode
        return None if runs else "a docker daemon"

    def build(self, *options: str) -> None:
        run("docker", "build", *options, "deploy", DOCKER_BUILDKIT="1")

    def remove(self) -> None:
        run("docker", "rmi", self.image, self.bento)

    def files(self) -> set[str]:
        container = run("docker", "create", self.image).strip()
        try:
            with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as exported:
                return set(tarfile.open(fileobj=exported.stdout, mode="r|").getnames())
        finally:
            run("docker", "rm", container)

    @cached_property
    def config(self) -> dict[str, Any]:
        (image,) = json.loads(run("docker", "image", "inspect", self.image))
        return image["Config"]

    def start(self, port: int, log: IO[str], **environment: str) -> subprocess.Popen:
        options = ["--rm", f"--name=mnist-gan-{port}", "--network=host", "--read-only", "--tmpfs=/tmp"]
        options += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
        options += [f"--volume=/dev/null:/{shell}" for shell in SHELLS]
        options += [f"--env={name}={value}" for name, value in {"BENTOML_PORT": port, **environment}.items()]
        return subprocess.Popen(["docker", "run", *options, self.image], stdout=log, stderr=log)

    def uids(self, service: subprocess.Popen, port: int) -> set[int]:
        _, *processes = run("docker", "top", f"mnist-gan-{port}", "-eo", "pid,uid").splitlines()
        return {int(line.split()[1]) for line in processes}

    def is_healthy(self, service: subprocess.Popen, port: int) -> bool:
        exits = "{{range .State.Health.Log}}{{.ExitCode}} {{end}}"
        deadline = time.monotonic() + 60
        while not (exit_codes := run("docker", "inspect", "--format", exits, f"mnist-gan-{port}").split()):
            assert time.monotonic() < deadline
            time.sleep(1)
        return exit_codes[-1] == "0"


class Buildah(Engine):
    """Builds with buildah; runs the image in a mount namespace and a chroot, because buildah runs no containers."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.environment |= STORAGE

    @classmethod
    def missing(cls) -> str | None:
        if not shutil.which("buildah") or os.geteuid():
            return "buildah (Debian: apt-get install buildah) and root"
        if not STAND_IN.exists() and not run("buildah", "images", "-q", BASE, **STORAGE):
            return f"a base image: pull {BASE} with buildah"
        return None

    def __enter__(self) -> "Engine":
        if STAND_IN.exists():
            run(STAND_IN, **STORAGE)
        super().__enter__()
        self.container = run("buildah", "from", self.image, **STORAGE).strip()
        self.root = Path(run("buildah", "mount", self.container, **STORAGE).strip())
        return self

    def build(self, *options: str) -> None:
        run("buildah", "build", *options, "deploy", **STORAGE)

    def remove(self) -> None:
        run("buildah", "rm", self.container, **STORAGE)
        run("buildah", "rmi", self.image, self.bento, **STORAGE)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads(run("buildah", "inspect", "--type=image", self.image, **STORAGE))["Docker"]["config"]

    def start(self, port: int, log: IO[str], **environment: str) -> subprocess.Popen:
        variables = [f"{name}={value}" for name, value in {"BENTOML_PORT": port, **environment}.items()]
        command = ["unshare", "--mount", "sh", "-ec", ENTER, "sh", str(self.root), " ".join(SHELLS)]
        command += [self.config["User"], *self.config["Env"], *variables, *self.config["Entrypoint"]]
        return subprocess.Popen(command, stdout=log, stderr=log)

    def uids(self, service: subprocess.Popen, port: int) -> set[int]:
        return {Path(f"/proc/{service.pid}").stat().st_uid}

    def is_healthy(self, service: subprocess.Popen, port: int) -> bool:
        _, *check = self.config["Healthcheck"]["Test"]
        inside = ["chroot", f"--userspec={self.config['User']}", f"/proc/{service.pid}/root", "/usr/bin/env", "-i"]
        return not subprocess.run([*inside, *self.config["Env"], f"BENTOML_PORT={port}", *check]).returncode
