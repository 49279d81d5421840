"""Where images and attributes come from."""
