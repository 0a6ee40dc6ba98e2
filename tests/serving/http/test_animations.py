import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from serving.http.animations import animation, crossfade


@pytest.mark.parametrize(
    ("format", "channels", "colours"), [("gif", 1, 256), ("webp", 1, 256), ("webp", 3, 1_200), ("gif", 3, 256)]
)
def test_an_animation_is_lossless_except_for_the_colours_of_a_gif(format, channels, colours):
    images = np.arange(4 * channels * 20 * 20).reshape(4, channels, 20, 20).astype(np.uint8)
    images = np.random.default_rng(0).permuted(images, axis=3)
    with Image.open(io.BytesIO(animation(images, 1, format))) as read:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(read)]
    assert len(frames) == 6
    for frame, index in zip(frames, (0, 1, 2, 3, 2, 1), strict=True):
        exact = np.broadcast_to(images[index].transpose(1, 2, 0), (20, 20, 3))
        assert len(np.unique(frame.reshape(-1, 3), axis=0)) <= colours
        if (format, channels) != ("gif", 3):
            np.testing.assert_array_equal(frame, exact)


def test_a_crossfade_begins_in_the_first_sequence_and_ends_in_the_second():
    start, end = (np.full((5, 1, 2, 2), level, np.uint8) for level in (0, 200))
    assert crossfade(start, end)[:, 0, 0, 0].tolist() == [0, 50, 100, 150, 200]
