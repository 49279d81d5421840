"""Latent diffusion: CLDM and DLDM."""
