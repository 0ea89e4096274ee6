"""What every program needs: errors, the command line, the device, claims on files, worker
processes, installation."""
