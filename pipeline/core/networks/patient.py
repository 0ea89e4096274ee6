"""The network on patient columns: two hidden layers, 256 and 128 in the paper; the header of its
weights file holds the encoder of the columns."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline.core.artifacts.provenance import check_data, read_weights_header
from pipeline.core.networks.image import fill_network
from pipeline.core.networks.patient_columns import encode_columns, width
from pipeline.core.networks.scoring import sigmoid
from pipeline.core.runtime.errors import UserError


class PatientNetwork(nn.Module):
    """float32 (B, width) columns -> float32 (B, K) scores."""

    def __init__(self, columns: int, hidden: tuple[int, int], labels: int) -> None:
        super().__init__()
        first, second = hidden
        self.layers = nn.Sequential(
            nn.Linear(columns, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()
        )
        self.classifier = nn.Linear(second, labels)

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.layers(columns))


class Blended(nn.Module):
    """The score of 0.5 p + 0.5 q: p the patient network's, q a frozen image network's probability
    (paper, figure 9).

    Input (B, width + K), the last K columns being q. Returns the logit of the mean, so that a loss
    that takes the sigmoid of scores sees the mean itself.
    """

    def __init__(self, patients: PatientNetwork) -> None:
        super().__init__()
        self.patients = patients

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # The patient columns, and behind them q.
        columns, q = inputs.tensor_split([self.patients.layers[0].in_features], dim=1)
        p = torch.sigmoid(self.patients(columns))
        # eps keeps the logit finite where the mean rounds to 0 or 1.
        return torch.logit(0.5 * p + 0.5 * q, eps=1e-6)


class PatientRows(torch.utils.data.Dataset):
    """Rows of a float32 matrix; the item (epoch, indices) is the rows and the indices."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = torch.from_numpy(matrix)

    def __getitem__(self, key: tuple[int, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.from_numpy(key[1])
        return self.matrix[indices], indices


def load_patient_network(path: Path) -> tuple[PatientNetwork, dict]:
    """The network of a weights file, in eval mode, and its header (with "encoder", "hidden",
    "labels")."""
    # The header says how wide it is: the columns and categories of that fold's training rows.
    header = read_weights_header(path)
    check_data(path)
    for key in ("encoder", "hidden", "labels"):
        if key not in header:
            raise UserError(f"{path}: its header lacks {key!r}; delete it and train again")
    columns = width(header["encoder"])
    network = PatientNetwork(columns, tuple(header["hidden"]), len(header["labels"]))
    fill_network(network, path, "network on patient columns")
    return network.eval(), header


@torch.inference_mode()
def score_patients(network: PatientNetwork, rows: pd.DataFrame, encoder: dict) -> np.ndarray:
    """float64 (N, K) scores in [0, 1], computed on the CPU, each row alike whatever the number of
    rows."""
    columns = torch.from_numpy(encode_columns(rows, encoder))
    return sigmoid(network.cpu()(columns).numpy())
