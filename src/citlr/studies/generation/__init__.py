"""`citlr reproduce generation`: the comparison of generators."""
