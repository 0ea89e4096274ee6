"""Synthetic raw downloads in the organisers' own layouts: `python -m pipeline.demo`."""
