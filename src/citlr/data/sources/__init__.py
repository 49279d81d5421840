"""Public data sets by their own file layouts, one file each."""
