"""What stages hand to each other: where it lies, how it is written, what made it, and the tables
and labels in it."""
