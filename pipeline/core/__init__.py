"""Reusable, stage-free code: it imports no stage and no competition."""
