"""What all studies share: the sweep and the engines that it runs on."""
