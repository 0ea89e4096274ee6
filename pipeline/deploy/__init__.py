"""Submissions that run elsewhere: packages for Kaggle and CodaLab (this folder), the programs that
run there (away), and their rehearsals at home (rehearsal)."""
