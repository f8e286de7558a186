"""Files: one module per format or instrument, and the registry that chooses by looking at the file."""
