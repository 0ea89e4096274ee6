"""What runs away from home, on Kaggle or CodaLab, without a network and with few packages."""
