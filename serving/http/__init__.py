"""HTTP service: BentoML runs the process, onnxruntime runs the model file. service.py is the place to start."""
