"""Training of the networks that studies audit."""
