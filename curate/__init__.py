"""Stage one: what good output is, and the pairs that show it."""
