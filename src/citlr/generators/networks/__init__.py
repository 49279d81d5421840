"""The networks that are trained, and nothing of their training."""
