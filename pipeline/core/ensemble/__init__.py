"""Members of an ensemble: aligned by id, averaged, selected, scored with intervals."""
