"""Requests to a running service (`make serve`) with BentoML's Python client, and /decode with httpx.

    python examples/client.py [URL]

/generate returns a PNG, /dataset an .npz file. /decode receives latents as .npy and returns images as .npy.
"""

import io
import sys
from pathlib import Path

import bentoml
import httpx
import numpy as np


def main(url: str = "http://localhost:3000") -> None:
    with bentoml.SyncHTTPClient(url) as client:
        # An image depends only on the seed and its index: image 10 of seed 7 is the same in every request.
        Path("grid.png").write_bytes(client.generate(n=16, seed=7, first=10, labels=["3", "8"], scale=4))
        with np.load(io.BytesIO(client.dataset(n=100, seed=7))) as dataset:
            print("/dataset:", dataset["images"].shape, np.bincount(dataset["labels"], minlength=10))
        card = client.card()
        print("/card:", card["name"], card["file_sha256"])

    latents = io.BytesIO()
    np.save(latents, np.random.default_rng(0).standard_normal((256, card["latent_dim"]), np.float32))
    response = httpx.post(f"{url}/decode", params={"labels": "0123456789"}, content=latents.getvalue())
    print("/decode:", np.load(io.BytesIO(response.raise_for_status().content)).shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
