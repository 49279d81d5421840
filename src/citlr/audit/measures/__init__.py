"""What is measured of redrawn images, and of what a model makes of them, before any gate."""
