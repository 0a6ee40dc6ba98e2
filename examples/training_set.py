"""Requests a labelled training set of the size of MNIST from a running service (`make serve`).

    python examples/training_set.py [URL [N]]

An image depends only on the seed and its index, so parts can be requested in any order, and a failed part again.
"""

import io
import sys
from pathlib import Path

import bentoml
import numpy as np

SEED = 2026
PART = 10_000
"""Images per request; more than 10,000 are rejected by the service's default settings."""
OUT = Path("digits.npz")


def main(url: str = "http://localhost:3000", n: str = "60000") -> None:
    parts = []
    with bentoml.SyncHTTPClient(url, timeout=120) as client:
        for first in range(0, int(n), PART):
            response = client.dataset(seed=SEED, first=first, n=min(PART, int(n) - first))
            parts.append(np.load(io.BytesIO(response)))
            print(f"{first + len(parts[-1]['labels']):,} of {int(n):,}", flush=True)
    images = np.concatenate([part["images"] for part in parts])
    labels = np.concatenate([part["labels"] for part in parts])
    unfinished = OUT.with_suffix(".part")
    with unfinished.open("wb") as stream:
        np.savez_compressed(stream, images=images, labels=labels)
    unfinished.replace(OUT)
    print(f"{OUT}: images {images.shape}, labels {np.bincount(labels)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
