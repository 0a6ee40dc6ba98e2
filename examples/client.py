"""BentoML's Python client, and latents of one's own. Beside a service (`make serve`):

    python examples/client.py [URL]

Pictures come as PNG, a data set as npz, latents go and images come as npy.
"""

import io
import sys
from pathlib import Path

import bentoml
import httpx
import numpy as np


def main(url: str = "http://localhost:3000") -> None:
    with bentoml.SyncHTTPClient(url) as client:
        # Image 10 of seed 7 is the same image, however it is asked for.
        Path("sheet.png").write_bytes(client.generate(n=16, seed=7, first=10, labels=["3", "8"], scale=4))
        with np.load(io.BytesIO(client.dataset(n=100, seed=7))) as dataset:
            print("/dataset:", dataset["images"].shape, np.bincount(dataset["labels"], minlength=10))
        card = client.card()
        print("/card:", card["name"], card["file_sha256"])

    latents = io.BytesIO()
    np.save(latents, np.random.default_rng(0).standard_normal((256, card["latent_dim"]), np.float32))
    answer = httpx.post(f"{url}/decode", params={"labels": "0123456789"}, content=latents.getvalue())
    print("/decode:", np.load(io.BytesIO(answer.raise_for_status().content)).shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
