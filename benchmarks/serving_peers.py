"""Servers with FastAPI and with LitServe that run the model with onnxruntime, for comparison in `benchmarks.serving`.

    python -m benchmarks.serving_peers fastapi 8001 models/pretrained/mnist-fast.onnx

Both have /generate (PNG grid) and /dataset (.npz); only FastAPI has /decode (.npy in and out). The code is simple: one
thread for each run of the network, no access log, uvloop, and no checks other than types and ranges.
"""

import io
import math
import sys

import litserve
import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from pydantic import BaseModel, Field


class ImageRequest(BaseModel):
    """Fields of /generate and /dataset."""

    n: int = Field(default=16, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0)


class Model:
    """A model file in an onnxruntime session with one thread, and the encodings of its images."""

    def __init__(self, path: str):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.latent_dim = self.session.get_inputs()[0].shape[1]

    def latents(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((n, self.latent_dim), np.float32), rng.integers(0, 10, n)

    def draw(self, fields: ImageRequest) -> tuple[np.ndarray, np.ndarray]:
        latents, labels = self.latents(fields.n, fields.seed)
        return self.decode(latents, labels), labels

    def decode(self, latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.session.run(["image"], {"latent": latents, "label": labels})[0]

    def png_grid(self, images: np.ndarray) -> bytes:
        n = len(images)
        columns = math.ceil(math.sqrt(n))
        rows = -(-n // columns)
        cells = np.zeros((rows * columns, 28, 28), np.uint8)
        cells[:n] = images[:, 0]
        pixels = cells.reshape(rows, columns, 28, 28).swapaxes(1, 2).reshape(rows * 28, columns * 28)
        image = Image.fromarray(pixels)
        stream = io.BytesIO()
        image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(stream, "PNG")
        return stream.getvalue()

    def npz(self, images: np.ndarray, labels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, images=images[:, 0], labels=labels)
        return stream.getvalue()


class Api(litserve.LitAPI):
    """LitServe's hooks for one route; each route runs in a process of its own."""

    def __init__(self, path: str, api_path: str):
        super().__init__(api_path=api_path)
        self.path = path

    def setup(self, device: str) -> None:
        self.model = Model(self.path)

    def decode_request(self, request: dict) -> ImageRequest:
        return ImageRequest(**request)

    def encode_response(self, output: bytes) -> Response:
        return Response(output)


class Generate(Api):
    def predict(self, fields: ImageRequest) -> bytes:
        images, _ = self.model.draw(fields)
        return self.model.png_grid(images)


class Dataset(Api):
    def predict(self, fields: ImageRequest) -> bytes:
        return self.model.npz(*self.model.draw(fields))


def serve_litserve(port: int, path: str) -> None:
    apis = [Generate(path, "/generate"), Dataset(path, "/dataset")]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=port, log_level="warning", access_log=False, generate_client_file=False)


def serve_fastapi(port: int, path: str) -> None:
    app, model = FastAPI(), Model(path)

    @app.post("/generate")
    def generate(fields: ImageRequest) -> Response:
        images, _ = model.draw(fields)
        return Response(model.png_grid(images), media_type="image/png")

    @app.post("/dataset")
    def dataset(fields: ImageRequest) -> Response:
        return Response(model.npz(*model.draw(fields)), media_type="application/x-npz")

    @app.post("/decode")
    async def decode(request: Request, labels: str) -> Response:
        latents = np.load(io.BytesIO(await request.body()))
        cycled = np.resize(np.array([int(label) for label in labels]), len(latents))
        stream = io.BytesIO()
        np.save(stream, await run_in_threadpool(model.decode, latents, cycled))
        return Response(stream.getvalue(), media_type="application/x-npy")

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    {"fastapi": serve_fastapi, "litserve": serve_litserve}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
