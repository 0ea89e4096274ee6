"""torchrun, ending with the status of the stage that its processes run: torchrun's own is 1,
whatever they ended with.

    python -m pipeline.core.runtime.torchrun --standalone --nproc-per-node 8 \\
        -m pipeline.pretrain melanoma/b5_384/fold0

Exit status: 0; 75 where all were stopped by a time limit or a signal, so that the same command goes
on; else that of the first that failed.
"""

import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from pipeline.core.runtime.command import EXIT_TIME_LIMIT

# How processes end that stopped in time: by themselves, or by torchrun when the first had ended.
STOPPED = (EXIT_TIME_LIMIT, -signal.SIGTERM)


def status_of(arguments: list[str]) -> int:
    """Run torchrun; the exit status of what it ran."""
    try:
        main(arguments)
    except ChildFailedError as error:
        others = [one.exitcode for one in error.failures.values() if one.exitcode not in STOPPED]
        return abs(others[0]) if others else EXIT_TIME_LIMIT
    except SignalException:
        # It has passed the signal on and waited for the checkpoint.
        return EXIT_TIME_LIMIT
    return 0


if __name__ == "__main__":
    sys.exit(status_of(sys.argv[1:]))
