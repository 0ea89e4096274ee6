"""Submissions that run elsewhere: packages for Kaggle and CodaLab, what runs there, their
rehearsals."""
