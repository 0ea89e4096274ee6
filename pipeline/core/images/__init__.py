"""From any image file to batches: decoded, resized and stored once, then random views for training
and fixed views for scoring."""
