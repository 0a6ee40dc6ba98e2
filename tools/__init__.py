"""Helpers of the tests and the benchmarks, and checks that `make lint` runs. Nothing in here is part of the product."""
