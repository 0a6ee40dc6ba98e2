"""Gives the tests their own BentoML store, so that they neither use nor change the user's models."""

import os
import tempfile

_store = tempfile.TemporaryDirectory(prefix="mnist-gan-tests-")
os.environ |= {"BENTOML_HOME": _store.name, "BENTOML_DO_NOT_TRACK": "true"}
os.environ.pop("MNIST_GAN_MODEL", None)
