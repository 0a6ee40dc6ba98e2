"""Converts the generator of a checkpoint to an ONNX model file and checks its output against PyTorch."""
