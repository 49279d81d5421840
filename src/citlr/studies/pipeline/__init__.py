"""`citlr calibrate --pipeline`: the whole chain with trained generators, on worlds whose truth is known."""
