"""Bodies of requests and contents of responses, for the tests of the service."""

import io

import httpx
import numpy as np


def npy_body(array: np.ndarray) -> bytes:
    """Returns the array as an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_array(response: httpx.Response) -> np.ndarray:
    """Returns the array of a successful .npy response."""
    assert response.status_code == 200, response.text
    return np.load(io.BytesIO(response.content))


def npz_arrays(response: httpx.Response) -> dict[str, np.ndarray]:
    """Returns the arrays of a successful .npz response by name."""
    assert response.status_code == 200, response.text
    with np.load(io.BytesIO(response.content)) as arrays:
        return dict(arrays)


def npz_images(response: httpx.Response) -> np.ndarray:
    """Returns the images of a successful .npz response."""
    return npz_arrays(response)["images"]


def error_of(response: httpx.Response) -> dict:
    """Returns the error of a response, and checks that it has the format of all errors."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field"}
    assert body["error"]["message"]
    return body["error"]


def error_code(response: httpx.Response) -> tuple[int, str]:
    """Returns the status and the error code of an error response."""
    return response.status_code, error_of(response)["code"]


def error_field(response: httpx.Response) -> tuple[int, str | None]:
    """Returns the status and the invalid field of an error response."""
    return response.status_code, error_of(response)["field"]
