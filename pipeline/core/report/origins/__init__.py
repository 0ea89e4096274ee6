"""Sections of the report about where it is from: the facts of its first screen, the runs' recipes,
the members of the ensemble, the folds, the files."""
