"""The package run here as it will run there: no network, few packages, compared with the scores
made at home."""
