"""Calls a service with the openai package: openai_client.py URL EXPECTED.npz. It has the row of images of "draw 42"."""

import asyncio
import base64
import io
import sys
import urllib.request

import numpy as np
import openai
from PIL import Image

url, path = sys.argv[1:]
expected = np.load(path)["row"]
options = {"base_url": f"{url}/v1", "api_key": "any"}


def pixels(file: bytes) -> np.ndarray:
    """Returns the pixels of a picture."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image)


def check(response) -> None:
    """Compares a response with the expected picture."""
    picture = pixels(base64.b64decode(response.data[0].b64_json))
    np.testing.assert_array_equal(picture, expected)


client = openai.OpenAI(**options)
(model,) = client.models.list().data
assert (model.id, model.object) == ("mnist-gan", "model")
assert client.models.retrieve("mnist-gan").id == "mnist-gan"
request = {"prompt": "draw 42 please", "size": "56x28", "extra_body": {"seed": 7}}
check(client.images.generate(**request))
every_field = {"background": "auto", "moderation": "low", "output_compression": 100, "output_format": "png"}
every_field |= {"quality": "high", "style": "vivid", "user": "me", "model": "mnist-gan", "n": 1, "stream": False}
check(client.images.generate(**request, **every_field, response_format="b64_json"))
check(client.images.generate(**request, **dict.fromkeys(every_field), response_format=None))
for format in ("png", "webp"):
    response = client.images.generate(**request, n=2, response_format="url", output_format=format)
    files = [urllib.request.urlopen(image.url).read() for image in response.data]
    np.testing.assert_array_equal(
        pixels(files[0])[..., :1].squeeze() if format == "webp" else pixels(files[0]), expected
    )
    assert files[0] != files[1]
for exception, call in (
    (openai.BadRequestError, lambda: client.images.generate(prompt="a cat")),
    (openai.BadRequestError, lambda: client.images.generate(prompt="3", stream=True)),
    (openai.BadRequestError, lambda: client.images.edit(prompt="3", image=b"x")),
    (openai.NotFoundError, lambda: client.images.generate(prompt="3", model="gpt-image-1")),
    (openai.NotFoundError, lambda: client.models.retrieve("gpt-image-1")),
    (openai.NotFoundError, lambda: client.chat.completions.create(model="x", messages=[])),
):
    raised = None
    try:
        call()
    except openai.APIStatusError as error:
        raised = error
    assert type(raised) is exception, raised
    assert raised.body["message"], raised.body
    assert raised.body["type"] == "invalid_request_error"


async def asynchronous() -> None:
    """Calls the service with the asyncio client."""
    async with openai.AsyncOpenAI(**options) as client:
        for response in await asyncio.gather(*(client.images.generate(**request) for _ in range(8))):
            check(response)


asyncio.run(asynchronous())
