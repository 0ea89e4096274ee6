"""What is still to be run as a graph of commands, and who runs it: Slurm, or this machine."""
