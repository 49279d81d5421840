"""The chain from images to verdict, and the page that tells it."""
