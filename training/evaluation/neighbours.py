"""Nearest training images of generated images, by pixel distance, to find copies."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_QUERIES = 2_000
"""Number of images whose nearest neighbour is searched; further images are ignored, which bounds the time."""
_QUERIES_PER_BLOCK = 250
"""Rows of the distance matrix that are in memory at a time."""


def nearest_images(images: Tensor, candidates: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Finds the nearest candidate of each of the first 2,000 images.

    Args:
        images: uint8 (n, channels, height, width).
        candidates: uint8 (m, channels, height, width).

    Returns:
        distances: float64 (min(n, 2000),), Euclidean distances between pixels scaled to [0, 1].
        indices: int64 (min(n, 2000),), positions of the nearest candidates.
    """
    queries, others = (x.flatten(1).float() / 255 for x in (images[:MAX_QUERIES], candidates))
    norms = others.square().sum(1)
    blocks = []
    for rows in queries.split(_QUERIES_PER_BLOCK):
        # |x - y|^2 = |x|^2 - 2 x.y + |y|^2. |x|^2 is added only to the minimum, because it does not change the order.
        squares = torch.addmm(norms, rows, others.T, alpha=-2)
        smallest, index = squares.min(1)
        blocks.append(((smallest + rows.square().sum(1)).clamp_min(0).sqrt(), index))
    distances, indices = (torch.cat(column) for column in zip(*blocks, strict=True))
    return distances.double().numpy(), indices.numpy()
