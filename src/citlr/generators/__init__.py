"""Counterfactual image generators: (image, attributes) to the image under do(A=a)."""
