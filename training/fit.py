"""How images are brought to one size. This module does not import PyTorch, so `train --help` stays fast."""

from typing import Literal

Fit = Literal["crop", "pad", "stretch"]
"""How an image with other proportions becomes the requested size: only its middle, with a border, or distorted."""
DEFAULT_BACKGROUND = "white"
"""Colour behind transparent images and around padded ones."""
