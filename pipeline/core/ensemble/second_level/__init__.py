"""Combinations that are fitted and earn their place: candidates scored nested, trees on scores and
patient columns."""
