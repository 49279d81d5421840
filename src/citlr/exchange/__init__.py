"""What crosses the house's door: closed models, the gate of a release, comparisons, what is handed on."""
