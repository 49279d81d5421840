"""What a verdict has to pass."""
