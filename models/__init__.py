"""A generator in its three forms: network (torch), checkpoint (safetensors) and ONNX file (onnxruntime)."""

import os

# Each library reads its variable once. Without it, onnxruntime looks up a host of its vendor and writes an id of this
# machine below ~/.cache, and BentoML reports each command and each model that is stored to its vendor.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
