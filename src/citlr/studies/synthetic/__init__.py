"""`citlr reproduce synthetic`: the publication's Fig. 2, corrected."""
