"""The HTTP service: BentoML runs it, and onnxruntime runs the model file."""
