"""Sections of the report about what was found: scores, operating points, calibration, differences,
subgroups, readers, views, the most confident errors."""
