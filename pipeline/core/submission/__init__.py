"""The organiser's file: its ids, its checks, its truth, Kaggle's client, and the lab book."""
