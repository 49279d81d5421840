"""How anything here learns: one loop, its budget, its checkpoints, arrays as long as a cohort."""
