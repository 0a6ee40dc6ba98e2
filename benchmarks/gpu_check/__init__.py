"""Checks everything that needs a GPU in less than ten minutes, and writes a JSON file and a table.

    make gpu-check                                                # or without make and git:
    python3 -m benchmarks.gpu_check --out gpu-check --minutes 9
    python3 -m benchmarks.gpu_check --stages speed profile        # only these stages
    python3 -m benchmarks.gpu_check --device cpu --tiny           # runs every stage on a CPU, to try the check itself

`__main__.py` runs each stage in a process of its own (`stage.py`), so that a crash, a CUDA error or a timeout affects
only that stage. `__main__.py` itself needs only the standard library.
"""
