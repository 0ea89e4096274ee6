"""Where a submission runs away from home: packages for Kaggle and CodaLab, the programs in them, their rehearsals."""
