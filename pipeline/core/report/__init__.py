"""The report of a competition as one HTML page without a network, one file a section.

In the order of the page: scores, differences, roc_curves, readers, histograms, training (its logs:
training_curves), views, members, subgroups, gallery, folds, sources. `inputs` reads what they are
about, `names` names members and stages, `html` and `svg` draw.
"""
