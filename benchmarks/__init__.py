"""Benchmarks. Each is a module to be run in the root of the repository: `python -m benchmarks.training --help`.

results/ has their committed measurements. gpu_check/ is a benchmark of several stages for machines with a GPU.
"""
