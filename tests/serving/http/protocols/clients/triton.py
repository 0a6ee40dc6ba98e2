"""Calls a service with tritonclient: triton.py HOST:PORT EXPECTED.npz. It has latents, labels and their images."""

import asyncio
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

address, path = sys.argv[1:]
expected = np.load(path)
MODEL = "mnist-gan"


def inputs(binary: bool, module=triton):
    """Returns the latents and labels as inputs."""
    latent = module.InferInput("latent", list(expected["latents"].shape), "FP32")
    latent.set_data_from_numpy(expected["latents"], binary_data=binary)
    label = module.InferInput("label", list(expected["labels"].shape), "INT64")
    label.set_data_from_numpy(expected["labels"], binary_data=binary)
    return [latent, label]


def check(result) -> None:
    """Compares the images of a response with the expected ones."""
    np.testing.assert_array_equal(result.as_numpy("image"), expected["images"])


with triton.InferenceServerClient(address) as client:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "mnist-gan"
    for version in ("", "1"):
        assert client.is_model_ready(MODEL, version)
        metadata = client.get_model_metadata(MODEL, version)
        assert metadata["inputs"][0] == {"name": "latent", "datatype": "FP32", "shape": [-1, 64]}
        assert metadata["outputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 28, 28]}]
        assert len(metadata["parameters"]["file_sha256"]) == 64
        assert client.get_model_config(MODEL, version)["input"][1]["data_type"] == "TYPE_INT64"
        check(client.infer(MODEL, inputs(binary=True), model_version=version))
    assert not client.is_model_ready("other")
    assert not client.is_model_ready(MODEL, "2")
    assert client.get_model_repository_index() == [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]
    for binary_input in (True, False):
        for outputs in (None, [triton.InferRequestedOutput("image", binary_data=True)]):
            check(client.infer(MODEL, inputs(binary_input), outputs=outputs))
        result = client.infer(
            MODEL, inputs(binary_input), outputs=[triton.InferRequestedOutput("image", binary_data=False)]
        )
        check(result)
        assert isinstance(result.get_output("image")["data"][0], int)
    for algorithm in ("gzip", "deflate"):
        for binary_input in (True, False):
            result = client.infer(
                MODEL,
                inputs(binary_input),
                request_id="my request",
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            check(result)
            assert result.get_response()["id"] == "my request"
    check(client.infer(MODEL, inputs(True), sequence_id=3, sequence_start=True, priority=1, timeout=1_000_000))
    check(client.async_infer(MODEL, inputs(True)).get_result())
    seeded = client.infer(MODEL, [], parameters={"seed": 7, "first": 3, "n": len(expected["images"])})
    np.testing.assert_array_equal(seeded.as_numpy("image"), expected["seeded"])
    for call, text in (
        (lambda: client.infer("other", inputs(True)), "There is no model 'other'"),
        (lambda: client.infer(MODEL, inputs(True), model_version="2"), "no version '2'"),
        (lambda: client.infer(MODEL, inputs(True)[:1]), "label"),
        (lambda: client.infer(MODEL, inputs(True)[1:]), "latent is missing"),
        (lambda: client.infer(MODEL, [], parameters={"sed": 7}), "sed"),
        (lambda: client.get_inference_statistics(MODEL), "does not exist"),
    ):
        message = ""
        try:
            call()
        except InferenceServerException as error:
            message = error.message()
        assert text in message, (text, message)


async def asynchronous() -> None:
    """Calls the service with the asyncio client."""
    async with aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        for result in await asyncio.gather(*(client.infer(MODEL, inputs(True, aio)) for _ in range(8))):
            check(result)


asyncio.run(asynchronous())
