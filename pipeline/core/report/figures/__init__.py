"""The drawings of the report, as SVG: ROC curves, histograms of scores, training curves."""
