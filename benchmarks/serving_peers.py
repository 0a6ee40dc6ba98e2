"""What a user would write instead of the service, for `benchmarks/serving.py`: FastAPI and LitServe over onnxruntime.

    python benchmarks/serving_peers.py fastapi 8001 models/pretrained/mnist-fast.onnx

Each answers /generate (PNG sheet), /dataset (.npz) and, FastAPI alone, /decode (.npy in and out), as a capable engineer
would have it in an afternoon: one thread a run, no access log, uvloop. Nothing is checked but types and ranges.
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


class Asked(BaseModel):
    n: int = Field(default=16, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0)


class Model:
    def __init__(self, path: str):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.dimensions = self.session.get_inputs()[0].shape[1]

    def latents(self, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((n, self.dimensions), np.float32), rng.integers(0, 10, n)

    def draw(self, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
        latents, labels = self.latents(asked.n, asked.seed)
        return self.decode(latents, labels), labels

    def decode(self, latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self.session.run(["image"], {"latent": latents, "label": labels})[0]

    def sheet(self, images: np.ndarray) -> bytes:
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

    def arrays(self, images: np.ndarray, labels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, images=images[:, 0], labels=labels)
        return stream.getvalue()


class Api(litserve.LitAPI):
    """LitServe's hooks; every API has a process of its own."""

    def __init__(self, path: str, api_path: str):
        super().__init__(api_path=api_path)
        self.path = path

    def setup(self, device: str) -> None:
        self.model = Model(self.path)

    def decode_request(self, request: dict) -> Asked:
        return Asked(**request)

    def encode_response(self, output: bytes) -> Response:
        return Response(output)


class Generate(Api):
    def predict(self, asked: Asked) -> bytes:
        images, _ = self.model.draw(asked)
        return self.model.sheet(images)


class Dataset(Api):
    def predict(self, asked: Asked) -> bytes:
        return self.model.arrays(*self.model.draw(asked))


def serve_litserve(port: int, path: str) -> None:
    apis = [Generate(path, "/generate"), Dataset(path, "/dataset")]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=60, fast_queue=True)
    server.run(host="127.0.0.1", port=port, log_level="warning", access_log=False, generate_client_file=False)


def serve_fastapi(port: int, path: str) -> None:
    app, model = FastAPI(), Model(path)

    @app.post("/generate")
    def generate(asked: Asked) -> Response:
        images, _ = model.draw(asked)
        return Response(model.sheet(images), media_type="image/png")

    @app.post("/dataset")
    def dataset(asked: Asked) -> Response:
        return Response(model.arrays(*model.draw(asked)), media_type="application/x-npz")

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
