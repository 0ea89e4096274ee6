"""What every program needs: errors, environment variables, the command line, the device, claims on
files, worker processes, installation."""
