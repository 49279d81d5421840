"""Edits learnt from unpaired images: a displacement and a change of appearance, placed by each image's own anatomy."""
