"""Patient columns as numbers."""

import numpy as np
import pandas as pd
import pytest

from pipeline.core.config.task import Task
from pipeline.core.networks.patient_columns import encode_columns, fit_encoder, width
from pipeline.core.runtime.errors import UserError

TASK = Task(title="t", labels=("y",), numeric=("age",), categorical=("sex",))
ROWS = pd.DataFrame({"age": [20.0, 40.0, None], "sex": ["male", None, "female"]})


def test_values_and_missing():
    encoder = fit_encoder(ROWS, TASK)
    assert encode_columns(ROWS, encoder).tolist() == [
        [-1, 0, 0, 0, 1],
        [1, 0, 1, 0, 0],
        [0, 1, 0, 1, 0],
    ]
    assert width(encoder) == 5


def test_unseen_and_absent_are_no_errors():
    encoder = fit_encoder(ROWS, TASK)
    made = encode_columns(pd.DataFrame({"sex": ["unknown", None]}), encoder)
    assert made.tolist() == [[0, 1, 0, 0, 0], [0, 1, 1, 0, 0]]


def test_a_column_without_spread_or_values():
    rows = pd.DataFrame({"age": [5.0, 5.0], "sex": [None, None]})
    made = encode_columns(rows, fit_encoder(rows, TASK))
    assert np.isfinite(made).all() and made.tolist() == [[0, 0, 1], [0, 0, 1]]
    empty = pd.DataFrame({"age": [None, None], "sex": ["a", "b"]}, dtype=object)
    assert np.isfinite(encode_columns(empty, fit_encoder(empty, TASK))).all()


def test_a_constant_that_cannot_be_written_exactly_has_no_spread():
    """The deviation of many equal values is a rounding error, and the value read from a table is
    rounded otherwise."""
    rows = pd.DataFrame({"age": [np.log1p(2)] * 41, "sex": "male"})
    encoder = fit_encoder(rows, TASK)
    assert encode_columns(rows.assign(age=1.09861229), encoder)[:, 0] == pytest.approx(0, abs=1e-6)


def test_a_column_that_training_lacks_is_named():
    with pytest.raises(UserError, match="'sex'"):
        fit_encoder(ROWS.drop(columns="sex"), TASK)
