"""The names and colours of members and stages on the page."""

from pipeline.core.config.run import METADATA
from pipeline.core.config.stages import BLEND, ENSEMBLE, STAGE_1

ROW_STYLES = {STAGE_1: "c-ce", BLEND: "c-final", ENSEMBLE: "c-final", METADATA: "c-other"}
STAGE_2_STYLE = "c-aucm"  # whatever the loss of stage 2


def style_of(stage: str) -> str:
    """The colour (a class of the page) of a stage of scores.csv."""
    return ROW_STYLES.get(stage, STAGE_2_STYLE)


def member_title(member: str, stage: str) -> str:
    """A member and stage of scores.csv in words.

    >>> member_title("b5_384", "AUC-M"), member_title("ensemble", "ensemble")
    ('b5_384, AUC-M', 'ensemble of the runs')
    >>> member_title("ensemble", "blend"), member_title("metadata", "metadata")
    ('ensemble, blended with metadata', 'metadata')
    """
    if member == stage == ENSEMBLE:
        return "ensemble of the runs"
    if member == stage:
        return member
    return f"{member}, {'blended with metadata' if stage == BLEND else stage}"


def pair_title(text: str) -> str:
    """`b5_384 AUC-M`, as the differences of ensemble.json name a member and stage, in words."""
    member, stage = text.split(" ", 1)
    return member_title(member, stage)
