"""One file a competition: all that is true of it alone. What such a file holds:
`pipeline/core/config/task.py`."""
