"""The paper's benchmarks: data sets, networks, one trial and its training, the store of results."""
