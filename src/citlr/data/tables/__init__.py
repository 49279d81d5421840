"""What the columns of a table say: text as it is written, levels named once, paths that stay in their folder."""
