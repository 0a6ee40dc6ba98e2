"""The generator as a network (torch), as a checkpoint (safetensors) and as an ONNX model file (onnxruntime)."""

import os

# Both variables have to be set before the library is imported. Without the first, onnxruntime contacts its vendor and
# stores an id of this machine in ~/.cache. Without the second, BentoML reports each command and each stored model.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
