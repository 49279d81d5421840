"""The default test: levels are reshuffled within an image."""
