"""How anything here learns: splits made ready, one loop, its checkpoints."""
