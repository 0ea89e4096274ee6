"""One file per competition: all that is true of it alone. See `pipeline.core.config` for what such a file holds."""
