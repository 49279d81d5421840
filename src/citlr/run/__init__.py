"""What a run leaves on disk: files, stages, the folder that holds them, and where the numbers come from."""
