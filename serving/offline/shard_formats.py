"""Writers of the three shard formats: .npz, tar files for WebDataset, and Parquet. None needs all images in memory."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from models.common.array_types import Images
from models.common.image_files import grid, npz_layout, png
from models.onnx_file.generator import Generator

Format = Literal["npz", "webdataset", "parquet"]
IMAGES_IN_MEMORY = 4_096
"""Maximum number of images that each process has in memory at a time."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""Time stamp of the files in an .npz archive, so that the same images give the same bytes. It is the earliest that the
zip format can store."""

Chunk = tuple[int, Images, NDArray[np.int64] | None]
"""Index of the first image, images uint8 (n, channels, height, width), and labels int64 (n,) or None."""
SUFFIXES: dict[Format, str] = {"npz": "npz", "webdataset": "tar", "parquet": "parquet"}
"""File name extension of each format."""


class ShardFile(io.BufferedWriter):
    """A new file that raises an OSError only once. After an error it ignores everything that is written.

    The libraries try to complete their file when they are closed or deleted. Each attempt would raise the same error
    again and print another traceback.
    """

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path, "w"))
        self._failed = False

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        return memoryview(data).nbytes if self._failed else self._once(lambda: super(ShardFile, self).write(data))

    def flush(self) -> None:
        if not self._failed:
            self._once(super().flush)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return offset if self._failed else self._once(lambda: super(ShardFile, self).seek(offset, whence))

    def _once(self, call):  # type: ignore[no-untyped-def]
        try:
            return call()
        except OSError:
            self._failed = True
            raise


def _write_npz(stream: IO[bytes], generator: Generator, span: range, chunks: Iterator[Chunk]) -> None:
    """Writes `images` uint8 (n, height, width) or (n, height, width, 3), and `labels` int64 (n,) if any."""
    shape = (len(span), *npz_layout(np.empty((0, *generator.card.image_shape), np.uint8)).shape[1:])
    labels = []
    with zipfile.ZipFile(stream, "w") as archive:
        with archive.open(zipfile.ZipInfo("images.npy", ZIP_TIME), "w", force_zip64=True) as entry:
            _write_npy_header(entry, np.dtype(np.uint8), shape)
            for _, images, drawn in chunks:
                entry.write(npz_layout(images).tobytes())
                if drawn is not None:
                    labels.append(drawn)
        if labels:
            with archive.open(zipfile.ZipInfo("labels.npy", ZIP_TIME), "w", force_zip64=True) as entry:
                _write_npy_header(entry, np.dtype(np.int64), (len(span),))
                entry.write(np.concatenate(labels).tobytes())


def _write_npy_header(entry: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(entry, header)


def _write_webdataset(stream: IO[bytes], generator: Generator, span: range, chunks: Iterator[Chunk]) -> None:
    """Writes a tar file for WebDataset: `<index>.png` for each image, and `<index>.cls` with its class index.

    The index has 16 digits. Without classes there are no .cls files.
    """
    from webdataset import TarWriter

    writer = TarWriter(stream, encoder=False, mtime=0, user="", group="", format=tarfile.USTAR_FORMAT)
    for first, images, labels in chunks:
        for i, image in enumerate(images):
            sample = {"__key__": f"{first + i:016}", "png": png(grid(image[None]))}
            if labels is not None:
                sample["cls"] = str(labels[i]).encode()
            writer.write(sample)
    writer.close()


def _write_parquet(stream: IO[bytes], generator: Generator, span: range, chunks: Iterator[Chunk]) -> None:
    """Writes columns `image`, a struct of PNG `bytes` and `path` as in Hugging Face datasets, and `label` if any."""
    import pyarrow as pa
    from pyarrow import parquet

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = list(generator.card.class_names)
    feature = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    features = {"info": {"features": {"image": {"_type": "Image"}} | feature}}
    columns = [("image", image)] + ([("label", pa.int64())] if names else [])
    schema = pa.schema(columns, {"huggingface": json.dumps(features)})
    with parquet.ParquetWriter(stream, schema) as writer:
        for first, images, labels in chunks:
            rows = [{"bytes": png(grid(item[None])), "path": f"{first + i:016}.png"} for i, item in enumerate(images)]
            arrays = [pa.array(rows, image)] + ([] if labels is None else [pa.array(labels)])
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


WRITERS = {"npz": _write_npz, "webdataset": _write_webdataset, "parquet": _write_parquet}
"""Functions (stream, generator, indices of the images, chunks) that write one shard, by format."""
