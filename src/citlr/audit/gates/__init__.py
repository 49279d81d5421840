"""What a verdict has to pass, and the controls of the whole chain: one file each."""
