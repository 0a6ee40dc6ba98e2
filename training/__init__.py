"""Trains GANs, from images to checkpoints, and exports and evaluates their generators."""
