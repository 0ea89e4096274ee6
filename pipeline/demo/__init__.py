"""Synthetic raw downloads in the organisers' own layouts: `python -m pipeline.demo`.

melanoma, chexpert and isic2024 write one download each; patients draws the rows of their tables,
drawings the images, files the image files.
"""
