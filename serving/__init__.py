"""The model file on the network and on the command line. Nothing here imports torch."""
