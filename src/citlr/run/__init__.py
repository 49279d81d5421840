"""What a run leaves on disk: files, stages, the folder that holds them; and the engines that do parts of them."""
