"""Helpers that all packages share: array types, checksums, commands, errors, files, locks, image files and threads.

They import nothing from the other packages, and neither torch nor onnxruntime.
"""
