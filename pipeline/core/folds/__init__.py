"""Folds without leaks: groups that belong together, the search for balanced folds, imported maps,
who trains and who validates, and the audit."""
