"""The environment of all tests.

They have their own BentoML store, so that they neither use nor change the user's models. They train with one thread,
because another number changes the last bits of the weights, and because several tests run at the same time.
"""

import os
import tempfile

_store = tempfile.TemporaryDirectory(prefix="mnist-gan-tests-")
os.environ |= {"BENTOML_HOME": _store.name, "BENTOML_DO_NOT_TRACK": "true"}
os.environ.pop("MNIST_GAN_MODEL", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")
