"""Which sizes of a competition's pictures stand, and which the named runs need.

python -m pipeline.core.runs.prepared melanoma [melanoma/b5_384 ...]      exit 0 when nothing is
                                                                          missing, else 1
"""

import sys

from pipeline.core.config.competition import load
from pipeline.core.config.target import parse_target
from pipeline.core.images.prepared import needed_sizes, prepared_sizes
from pipeline.core.runtime.command import run_stage, stage_parser


def main(arguments) -> None:
    competitions = [
        load(name) for name in dict.fromkeys(parse_target(t).competition for t in arguments.targets)
    ]
    sys.exit(
        any(needed_sizes(each, arguments.targets) - prepared_sizes(each) for each in competitions)
    )


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
