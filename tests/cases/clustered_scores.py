"""Random scores of patients with several rows each, for tests of intervals."""

import numpy as np


def sample(seed: int, rows: int = 200, positives: int = 20, columns: int = 1, per_patient: int = 3):
    """(scores (rows, columns), labels (rows,), groups (rows,)) with a patient effect in scores."""
    generator = np.random.default_rng(seed)
    groups = np.arange(rows) // per_patient
    labels = np.zeros(rows)
    labels[generator.choice(rows, positives, replace=False)] = 1
    effect = generator.standard_normal((rows, columns))[groups]
    scores = 0.6 * effect + 0.8 * generator.standard_normal((rows, columns))
    return scores + 1.5 * labels[:, None], labels, groups


def drawn(generator, rows: int, positives: int, shift: float):
    """Two equally good models (rows, 2), labels and patients: patients of 1 to 5 rows."""
    groups = np.repeat(np.arange(rows), generator.integers(1, 6, rows))[:rows]
    labels = np.zeros(rows)
    labels[generator.choice(rows, positives, replace=False)] = 1
    effect = generator.standard_normal(rows)[groups]
    common = np.sqrt(0.3) * effect + np.sqrt(0.7) * generator.standard_normal(rows)
    noise = 0.9 * common[:, None] + np.sqrt(0.19) * generator.standard_normal((rows, 2))
    return noise + shift * labels[:, None], labels, groups
