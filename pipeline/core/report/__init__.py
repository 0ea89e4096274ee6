"""The report of a competition as one HTML page without a network, one file a section."""
