"""Checks the exceptions and retries of the openai package: openai_errors.py URL KIND.

KIND is token, for a service whose token is "secret"; full, for one that handles one request at a time; or unready, for
one without a model.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import openai

url, kind = sys.argv[1:]


def generate(client: openai.OpenAI) -> type[Exception] | None:
    """Requests a large picture. Returns the exception that the client raises."""
    try:
        client.images.generate(prompt="0123456789" * 6, size="2048x2048", n=10, extra_body={"seed": 7})
    except openai.APIStatusError as error:
        return type(error)
    return None


def client(key: str = "secret", retries: int = 0) -> openai.OpenAI:
    """Returns a client."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=retries)


if kind == "token":
    assert generate(client("wrong")) is openai.AuthenticationError
    assert generate(client()) is None
elif kind == "full":
    for retries, allowed in ((0, {None, openai.RateLimitError}), (20, {None})):
        with ThreadPoolExecutor(4) as pool:
            raised = set(pool.map(generate, [client(retries=retries)] * 4))
        assert raised == allowed, raised
else:
    assert generate(client(retries=2)) is openai.InternalServerError
