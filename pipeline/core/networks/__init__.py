"""The image network (timm) and the patient network, their weights files, and how they score."""
