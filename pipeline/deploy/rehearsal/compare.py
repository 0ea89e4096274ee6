"""Compare the scores made away from home with those made at home."""

from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.tables import read_csv
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.ids import plain_id
from pipeline.core.submission.organiser_file import Wanted, check_file, refuse_errors

EQUAL = 1e-4  # largest difference of a score in [0, 1] that sums in another order make
RANKS = 0.999  # smallest rank correlation where scores pass through 8 bits of precision (bf16)


def compare_with_home(away: Path, home: pd.DataFrame, want: Wanted) -> str:
    """Check a predictions file, compare it with the scores made at home, and return how far apart
    they are, as a sentence.

    home: the id column and the score columns. UserError where the file has errors, or where its
    scores are others.
    """
    # Complete and by id before any score is looked at.
    refuse_errors(away, check_file(away, want))
    first = by_id(read_csv(away, ids=(want.id_column,)), want)
    second = by_id(home, want).loc[first.index]

    # Either is enough: equal scores, or, where bfloat16 has rounded them, an equal order.
    furthest = float((first - second).abs().max().max()) if len(first) else 0.0
    correlations = [first[column].rank().corr(second[column].rank()) for column in want.scores]
    lowest = min(correlations, default=1.0)
    if furthest > EQUAL and not lowest >= RANKS:  # NaN, of a constant column, is no agreement
        raise UserError(
            f"{away}: not the scores made at home: they differ by up to {furthest:.3g}, rank "
            f"correlation {lowest:.4f}"
        )
    return f"{len(first)} rows: the scores made at home within {furthest:.2g}"


def by_id(table: pd.DataFrame, want: Wanted) -> pd.DataFrame:
    """The score columns, indexed by id."""
    return table.set_index(table[want.id_column].map(plain_id))[list(want.scores)]
