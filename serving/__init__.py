"""The model file on the network and on the command line. Nothing here imports torch."""

import os

import models  # noqa: F401  switches telemetry off before anything imports onnxruntime or BentoML

# NumPy starts a thread for each CPU of the machine when it is loaded, even in a container that may use two of 64.
# Nothing in this package multiplies matrices with NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
