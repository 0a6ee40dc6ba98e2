"""The command `sample`, which writes images to files."""
