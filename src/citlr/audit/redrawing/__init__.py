"""Redrawing of a cohort: under every level, the coin, and replicates; and as it is seen at another size."""
