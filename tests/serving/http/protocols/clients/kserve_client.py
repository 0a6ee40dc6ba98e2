"""Calls a service with KServe's client: kserve_client.py URL EXPECTED.npz. The arrays are as for triton.py."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, path = sys.argv[1:]
expected = np.load(path)
MODEL = "mnist-gan"


def request(binary_input: bool, binary_output: bool) -> InferRequest:
    """Returns a request with the latents and labels."""
    inputs = []
    for name, datatype in (("latent", "FP32"), ("label", "INT64")):
        array = expected[f"{name}s"]
        inputs.append(InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary_input)
    outputs = [RequestedOutput("image", {"binary_data": binary_output})]
    return InferRequest(MODEL, inputs, request_id="1", request_outputs=outputs)


async def main() -> None:
    """Calls each route that the client has for the protocol."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, MODEL)
    assert not await client.is_model_ready(url, "other")
    for binary_input in (True, False):
        for binary_output in (True, False):
            response = await client.infer(url, request(binary_input, binary_output), model_name=MODEL)
            assert response.id == "1"
            np.testing.assert_array_equal(response.outputs[0].as_numpy(), expected["images"])
    message = ""
    try:
        await client.infer(url, request(True, True), model_name="other")
    except httpx.HTTPStatusError as error:
        message = str(error)
    assert "There is no model" in message
    await client.close()


asyncio.run(main())
