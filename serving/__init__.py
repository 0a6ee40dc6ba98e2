"""Uses a model file: `serving.http` serves images over HTTP, `serving.offline` writes them to files.

Neither imports torch.
"""

import os

import models  # noqa: F401  switches telemetry off before anything imports onnxruntime or BentoML

# When NumPy is imported, its BLAS starts a thread for each CPU of the machine, even in a container that may use two of
# 64. Nothing in this package multiplies matrices with NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
