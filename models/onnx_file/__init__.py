"""The ONNX model file: its card, its checks, and the generator that runs it. Never imports torch."""
