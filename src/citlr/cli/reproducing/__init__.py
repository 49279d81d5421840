"""`citlr reproduce`: the studies, one file each."""
