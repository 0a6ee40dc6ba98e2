"""A generator in its three forms: network (torch), checkpoint (safetensors) and ONNX file (onnxruntime)."""
