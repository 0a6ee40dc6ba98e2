"""Builds the container image, starts the service in it, and prints how to run it. `make container` runs this.

    python -m tools.container mnist-gan:0.1.0

The image contains the model that `bentoml build` packs: the newest one of the BentoML model store, or the pretrained
one. With MNIST_GAN_IMAGE=cuda it contains the CUDA libraries.
"""

import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from tools.container_engines import Docker, Engine, EngineError, usable_engine
from tools.ports import free_port

READY_SECONDS = 90
"""Maximum time until the service is ready."""
STARTS = 3


def main(image: str) -> None:
    try:
        engine = usable_engine()(image)
        print(f"building {image} with {type(engine).__name__.lower()}; this takes one to three minutes", flush=True)
        engine.build()
        try:
            seconds = median(seconds_until_ready(engine) for _ in range(STARTS))
        finally:
            engine.clean_up()
        print(f"{image}: {engine.size()}, ready {seconds:.1f} s after its start (median of {STARTS})")
    except EngineError as error:
        sys.exit(f"container: {error}")
    if not isinstance(engine, Docker):
        archive, driver = image.replace(":", "-") + ".tar", engine.environment["STORAGE_DRIVER"]
        print("To run the image, copy it to a machine with docker or podman, because buildah runs no services:")
        print(f"  STORAGE_DRIVER={driver} buildah push {image} docker-archive:{archive}:{image}")
        print(f"  docker load --input {archive}")
    print(f"  docker run --rm --read-only --tmpfs /tmp -p 3000:3000 {image}")


def seconds_until_ready(engine: Engine) -> float:
    """Starts a container, waits until the service is ready, and stops it.

    Returns:
        The time from the start to the first positive response of /readyz, in seconds.

    Raises:
        EngineError: the service ends, or is not ready after READY_SECONDS. The message contains its log.
    """
    port = free_port()
    with TemporaryDirectory() as folder:
        log = Path(folder, "service.log")
        start = time.monotonic()
        with log.open("w") as stream:
            service = engine.start(port, stream)
        try:
            while not is_ready(port):
                if service.poll() is not None or time.monotonic() > start + READY_SECONDS:
                    raise EngineError(f"the service did not become ready:\n{log.read_text()}")
                time.sleep(0.02)
            return time.monotonic() - start
        finally:
            service.terminate()
            service.wait(timeout=30)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
