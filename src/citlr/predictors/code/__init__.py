"""What the code of a model names, and what of it is installed."""
