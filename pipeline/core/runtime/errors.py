"""The two expected ways for a stage to stop: a mistake of the user's, and a time limit."""


class UserError(Exception):
    """A mistake that only the user can mend. The message is one line that names the file, row,
    column and value."""


class TimeLimitReached(Exception):
    """The stage stopped cleanly after a checkpoint; the same command goes on from there."""
