"""Training one phase of one fold: batch order, loop, checkpoints, log, validation, exact under
every kill."""
