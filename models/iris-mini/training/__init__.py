"""Training of iris-mini: its autoencoder, its transformer and its styles."""
