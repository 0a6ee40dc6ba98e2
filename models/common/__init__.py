"""Helpers that all packages share: errors, files, locks, checksums, images, threads and the frame of a command."""
