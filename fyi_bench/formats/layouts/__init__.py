"""The known layouts: a file here registers its formats by being there."""
