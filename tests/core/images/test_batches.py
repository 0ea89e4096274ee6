"""Loader processes: an error inside one is the same one line as without them, and they leave
signals to the parent."""

import os
import re
import signal

import numpy as np
import pytest
import torch

from pipeline.core.images.batches import loader
from pipeline.core.runtime.command import lost_loader
from pipeline.core.runtime.errors import UserError


class Items(torch.utils.data.Dataset):
    """Item k is k; what the others do stands in their names."""

    def __getitem__(self, key):
        if key == "wrong":
            raise UserError("7.jpg: missing or not an image")
        if key == "terminated":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGHUP)
            return 1
        if key == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.int64(key)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_the_same_with_and_without_workers(workers):
    found = []
    with pytest.raises(UserError, match=r"^7\.jpg: missing or not an image$"):
        found.extend(loader(Items(), [0, 1, "wrong", 3], workers, pin=False))
    assert not found or found == [0, 1]


def test_signals_to_the_whole_group_are_the_parents():
    assert list(loader(Items(), [0, "terminated", 2], 1, pin=False)) == [0, 1, 2]


def test_a_killed_worker_is_told_in_one_line():
    with pytest.raises(RuntimeError) as caught:
        list(loader(Items(), [0, "killed", 2], 1, pin=False))
    # torch says the one or the other, by what it sees first.
    words = "a loader process (is killed by signal: Killed|exited unexpectedly); memory"
    assert re.match(words, lost_loader(caught.value))
