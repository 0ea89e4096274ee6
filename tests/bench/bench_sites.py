"""Four hospitals that share no images, on synthetic data with site shift: each alone, CODA,
CODASCA, and all rows in one place.

    torchrun --nproc-per-node 4 -m tests.bench.bench_sites               71 s of a core
    torchrun --nproc-per-node 4 -m tests.bench.bench_sites --seeds 5 --steps 2048

prints  a row for each way to train: AUC on the rows of all sites, which none trained on, mean and
        standard deviation over seeds, of the worst site too; and how many numbers a site sent

A site has 400 rows of 16 features and its own shift, scale and share of positives (3 to 30 %). The
label depends on the features before the site's shift, with a second direction that predicts it
at one half of the sites and against it at the other, so that no site alone learns the whole.
"""

import argparse
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from pipeline.core.coda import CODA
from pipeline.core.losses import AUCMargin
from pipeline.core.losses.global_batch import own_batch
from pipeline.core.metrics import auc
from pipeline.core.pesg import PESG

FEATURES = 16
ROWS = 400
BATCH = 32
SHARES = (0.03, 0.1, 0.2, 0.3)  # of positives
# Way to train -> (local steps a round, control variates); None: the global batch of all rows.
WAYS = {
    "each alone": (0, False),
    "CODA, I = 1": (1, False),
    "CODA, I = 8": (8, False),
    "CODA, I = 32": (32, False),
    "CODASCA, I = 32": (32, True),
    "all rows in one place": None,
}


def site_rows(site: int, seed: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of a site; `seed` also tells training rows from test rows."""
    rng = np.random.default_rng((seed, site))
    shift = np.random.default_rng(site).normal(size=FEATURES)
    y = (rng.random(rows) < SHARES[site]).astype(np.float32)
    y[0], y[1] = 1, 0
    x = rng.normal(size=(rows, FEATURES))
    x[:, 0] += 1.2 * y
    x[:, 1] += (1.5 if site % 2 else -1.5) * y
    x = (1 + 0.3 * site) * x + 0.5 * shift
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


def trained(way: str, site: int, seed: int, steps: int) -> nn.Module:
    """This site's network after so many steps."""
    settings = WAYS[way]
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(FEATURES, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1)
    )
    loss = AUCMargin()
    x, y = site_rows(site, 2 * seed, ROWS)
    rng = np.random.default_rng((seed, site, 1))
    if settings is None:
        optimizer = PESG(network.parameters(), loss, lr=0.1)
        model = nn.parallel.DistributedDataParallel(network)
        for _ in range(steps):
            rows = rng.integers(ROWS, size=BATCH)
            optimizer.zero_grad()
            loss(model(x[rows])[:, 0], y[rows]).backward()
            optimizer.step()
        return network
    optimizer = CODA(network.parameters(), loss, *settings, lr=0.1)
    optimizer.share(network)
    with own_batch():
        for _ in range(steps):
            rows = rng.integers(ROWS, size=BATCH)
            optimizer.zero_grad()
            loss(network(x[rows])[:, 0], y[rows]).backward()
            optimizer.step()
    return network


def tested(network: nn.Module, seed: int) -> list[float]:
    """AUC on new rows of all sites together, then of each."""
    network.eval()
    parts = [site_rows(site, 2 * seed + 1, 2000) for site in range(len(SHARES))]
    with torch.no_grad():
        scores = [network(x)[:, 0].numpy() for x, _ in parts]
    labels = [y.numpy() for _, y in parts]
    each = [auc(h, y) for h, y in zip(scores, labels)]
    return [auc(np.concatenate(scores), np.concatenate(labels)), *each]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    site = dist.get_rank()
    if dist.get_world_size() != len(SHARES):
        sys.exit(f"this needs {len(SHARES)} processes: torchrun --nproc-per-node {len(SHARES)}")
    weights = sum(value.numel() for value in trained("each alone", 0, 0, 1).parameters())
    if site == 0:
        print("| | AUC, all sites | worst site | numbers sent |\n|---|---|---|---|", flush=True)
    for way, settings in WAYS.items():
        found = []
        for seed in range(arguments.seeds):
            own = torch.tensor(tested(trained(way, site, seed, arguments.steps), seed))
            # AUCs, of a test set that stands outside the sites; alone: the mean of four networks.
            dist.all_reduce(own)
            found.append((own / len(SHARES)).numpy())
        together = np.array([one[0] for one in found])
        worst = np.array([one[1:].min() for one in found])
        every, control = settings or (1, False)
        rounds = arguments.steps // every if every else 0
        sent = rounds * ((weights + 3) * (1 + control) + 64)
        if settings is None:
            sent = arguments.steps * (weights + 2 * BATCH)
        cells = [f"{part.mean():.3f} ± {part.std(ddof=1):.3f}" for part in (together, worst)]
        if site == 0:
            print(f"| {way} | {' | '.join(cells)} | {sent:,} |", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
