"""Leak-free folds: groups that belong together, the search for balanced splits, imported maps, the
audit."""
