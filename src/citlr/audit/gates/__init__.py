"""The limits that a verdict has to pass (gates)."""
