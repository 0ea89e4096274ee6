"""One fold of one run: its job, who makes it, what is missing, its predictions."""
