"""One file for each form in which a model comes."""
