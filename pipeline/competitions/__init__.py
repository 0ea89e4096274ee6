"""One file a competition, with all that is true of it alone.

What such a file holds: `pipeline/core/config/task.py`.
"""
