"""Fresh networks that read images and latents, with no part in any generator."""
