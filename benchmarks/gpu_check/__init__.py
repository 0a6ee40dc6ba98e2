"""Checks everything that only a GPU can show, in less than ten minutes, and writes one JSON file and one table.

    make gpu-check                                                # or, without make and git:
    python3 -m benchmarks.gpu_check --out gpu-check --minutes 9
    python3 -m benchmarks.gpu_check --stages speed profile        # only these stages
    python3 -m benchmarks.gpu_check --device cpu --tiny           # tries the script itself, without a GPU

`__main__.py` runs each stage of `STAGES` in a fresh process, which is `stage.py`: a crash, a CUDA error or a stage that
takes too long costs only that stage. `__main__.py` itself needs nothing but the standard library.
"""
