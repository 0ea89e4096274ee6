"""Programs that run away from home, on Kaggle or CodaLab, without a network and with few packages.

codalab and kaggle are the programs; stream scores the images within a time limit, combine averages
the scores; the notebook_* scripts become Kaggle's notebooks. Nothing here reaches core.metrics or
core.losses, hence no scipy.
"""
