"""Types of the arrays that functions exchange. n is the number of images, D the latent size of the generator."""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
"""uint8 (n, channels, height, width), with 1 channel (grey) or 3 (RGB), levels 0 to 255."""
Latents = NDArray[np.float32]
"""float32 (n, D)."""
Labels = NDArray[np.int64] | None
"""Class indices int64 (n,), or None if the generator takes no labels."""
