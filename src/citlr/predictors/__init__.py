"""The model under audit: images in, probabilities out."""
