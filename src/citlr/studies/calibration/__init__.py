"""`citlr calibrate`: the certificate of the statistics."""
