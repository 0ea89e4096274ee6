"""The report of a competition as one HTML page without a network, one file a section.

inputs     what it is about, read once
origins/   its first screen, recipes, members, folds, files
results/   scores, operating points, calibration, differences, subgroups, readers, views, errors
figures/   the drawings, and the sections that are little else
html, style, names, downloads     how it is written
"""
