"""The paper's benchmarks: data sets, networks, one trial and its training, the store of results.

A trial (trial.py) says what is trained; run.py trains it on data (datasets.py, inputs.py) with a
network (networks.py) by the loop (training.py); store.py keeps the record and runs many.
"""
