"""Generators without diffusion."""
