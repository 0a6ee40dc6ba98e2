"""Engines that build the container image and run it: docker, or buildah where there is no docker daemon."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar

from serving.http.container import BASE
from tools.service_process import ROOT

BENTOML = Path(sys.executable).parent / "bentoml"
BASE_SCRIPT = Path(os.environ.get("MNIST_GAN_CONTAINER_BASE", ROOT.parent / "shared/tools/container-base"))
"""Script that creates a base image with buildah where no container registry can be reached."""
SHELLS = ("usr/bin/dash", "usr/bin/bash")
"""Shells that a container cannot use, so that a service that needs one does not start."""
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


class EngineError(Exception):
    """A command of an engine failed. The message contains the command and its output."""


class Engine(ABC):
    """A program that builds, runs and deletes one container image.

    Args:
        image: name of the image, for example mnist-gan:0.1.0.
    """

    environment: ClassVar[Mapping[str, str]]
    """Environment variables of the engine's commands."""

    def __init__(self, image: str) -> None:
        self.image = image

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Returns a description of the missing requirement; None if the engine can be used."""

    def build(self) -> None:
        """Builds the image with the model that `bentoml build` packs.

        Raises:
            EngineError: a command failed.
        """
        engine, packed = type(self).__name__.lower(), self.image + "-bento"
        bento = self.run(BENTOML, "build", "--output", "tag").strip().removeprefix("__tag__:")
        # The image is built and run on the host's network, so that no bridge is needed.
        self.run(BENTOML, "containerize", bento, "--backend", engine, "--opt", "network=host", "-t", packed)
        options = ("--network=host", f"--build-arg=BENTO={packed}", f"--build-arg=BASE={BASE}")
        self.run(engine, "build", *options, "--file=deploy/serving.Containerfile", f"--tag={self.image}", "deploy")
        self.run(engine, "rmi", packed)

    @classmethod
    def run(cls, *command: object) -> str:
        """Runs a command in the root of the repository and returns its standard output.

        Raises:
            EngineError: the command failed.
        """
        words, environment = list(map(str, command)), os.environ | cls.environment
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise EngineError(f"{' '.join(words)} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    @abstractmethod
    def clean_up(self) -> None:
        """Deletes what the other methods have created, except the image."""

    def remove(self) -> None:
        """Deletes the image and all else that the methods have created."""
        self.clean_up()
        self.run(type(self).__name__.lower(), "rmi", self.image)

    @abstractmethod
    def size(self) -> str:
        """Returns the size of the image, for example "527 MB"."""

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
    environment: ClassVar = {"DOCKER_BUILDKIT": "1"}

    @classmethod
    def missing(cls) -> str | None:
        runs = shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True).returncode
        return None if runs else "a docker daemon"

    def clean_up(self) -> None:
        pass

    def size(self) -> str:
        return f"{int(self.run('docker', 'image', 'inspect', '--format={{.Size}}', self.image)) / 1e6:.0f} MB"

    def files(self) -> set[str]:
        container = self.run("docker", "create", self.image).strip()
        try:
            with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as exported:
                return set(tarfile.open(fileobj=exported.stdout, mode="r|").getnames())
        finally:
            self.run("docker", "rm", container)

    @cached_property
    def config(self) -> dict[str, Any]:
        (image,) = json.loads(self.run("docker", "image", "inspect", self.image))
        return image["Config"]

    def start(self, port: int, log: IO[str], **environment: str) -> subprocess.Popen:
        options = ["--rm", f"--name=mnist-gan-{port}", "--network=host", "--read-only", "--tmpfs=/tmp"]
        options += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
        options += [f"--volume=/dev/null:/{shell}" for shell in SHELLS]
        options += [f"--env={name}={value}" for name, value in {"BENTOML_PORT": port, **environment}.items()]
        return subprocess.Popen(["docker", "run", *options, self.image], stdout=log, stderr=log)

    def uids(self, service: subprocess.Popen, port: int) -> set[int]:
        _, *processes = self.run("docker", "top", f"mnist-gan-{port}", "-eo", "pid,uid").splitlines()
        return {int(line.split()[1]) for line in processes}

    def is_healthy(self, service: subprocess.Popen, port: int) -> bool:
        exits = "{{range .State.Health.Log}}{{.ExitCode}} {{end}}"
        deadline = time.monotonic() + 60
        while not (exit_codes := self.run("docker", "inspect", "--format", exits, f"mnist-gan-{port}").split()):
            assert time.monotonic() < deadline
            time.sleep(1)
        return exit_codes[-1] == "0"


class Buildah(Engine):
    """Builds with buildah; runs the image in a mount namespace and a chroot, because buildah runs no containers."""

    # With these settings buildah works inside a container, too; those of the environment take precedence.
    environment: ClassVar = {
        name: os.environ.get(name, value)
        for name, value in {
            "STORAGE_DRIVER": "vfs",
            "BUILDAH_ISOLATION": "chroot",
            "BUILDAH_FORMAT": "docker",
        }.items()
    }

    @classmethod
    def missing(cls) -> str | None:
        if not shutil.which("buildah") or os.geteuid():
            return "buildah (Debian: apt-get install buildah) and root"
        try:
            cls.run(*([BASE_SCRIPT] if BASE_SCRIPT.exists() else ["buildah", "pull", "--policy=ifmissing", BASE]))
        except EngineError as error:
            return f"a base image: {error}"
        return None

    def clean_up(self) -> None:
        if "container" in vars(self):
            self.run("buildah", "rm", self.container)

    def size(self) -> str:
        return self.run("buildah", "images", "--format={{.Size}}", self.image).strip()

    @cached_property
    def container(self) -> str:
        """Name of a container with the files of the image."""
        return self.run("buildah", "from", self.image).strip()

    @cached_property
    def root(self) -> Path:
        """Folder with the files of the container."""
        return Path(self.run("buildah", "mount", self.container).strip())

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads(self.run("buildah", "inspect", "--type=image", self.image))["Docker"]["config"]

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


ENGINES = (Docker, Buildah)


def usable_engine() -> type[Engine]:
    """Returns the first engine that can be used on this machine.

    Raises:
        EngineError: no engine can be used. The message names the missing requirements.
    """
    missing = {engine: engine.missing() for engine in ENGINES}
    for engine, requirement in missing.items():
        if requirement is None:
            return engine
    raise EngineError("needs " + ", or ".join(filter(None, missing.values())))
