"""Does a second stage with AUC-M help? One protocol over five sets of real images; see
`__main__.py`."""
