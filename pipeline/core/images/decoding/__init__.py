"""Any image file, a stranger's too, to pixels: its header is held against the file before anything
is allocated."""
