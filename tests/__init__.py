"""Runs in a BentoML store of its own, so that the tests neither meet nor leave a model of the user's."""

import os
import tempfile

_store = tempfile.TemporaryDirectory(prefix="mnist-gan-tests-")
os.environ |= {"BENTOML_HOME": _store.name, "BENTOML_DO_NOT_TRACK": "true"}
os.environ.pop("MNIST_GAN_MODEL", None)
