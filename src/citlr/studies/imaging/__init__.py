"""`citlr reproduce imaging`: the study of many networks."""
