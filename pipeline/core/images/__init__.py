"""An image on its way: decoded, resized and stored once; then views of it, in batches, for training
and scoring."""
