"""One image file to one array in [0, 1], and many of them at the speed of the disk."""
