"""The names in the columns `member`, `stage` and `label` of scores.csv, and in `published`.

    member      stage                     scores
    <run>       CE                        the run after stage 1
    <run>       AUC-M, AUC-S, ...         the run after stage 2, by the loss of that stage
    <run>       blend                     the run after stage 2, blended with the metadata network
    <run>-pretrained  blend               the run after stage 1 the same, where that is a member
    metadata    metadata                  the metadata network alone
    ensemble    ensemble                  the average of the runs
    ensemble    blend                     the same, blended with the metadata network
    <member>    imported                  predictions taken from elsewhere (`pipeline.member`)
    ensemble    <a combination's name>    nested scores of each way to combine (`earned`)
    ensemble    earned                    the combination that has earned its place, label by label

The label "mean" is the mean of the AUCs over the labels. The metadata network's name, of member and
stage alike, is `config.run.METADATA`.
"""

# stage 1 is always trained with cross-entropy, as in the paper
STAGE_1 = "CE"
# Finetune.loss -> the stage's name; "CE, finetuned" so that it is never taken for stage 1
STAGE_2 = {
    "aucm": "AUC-M",
    "aucs": "AUC-S",
    "pairwise": "Pairwise",
    "sopa": "SOPA",
    "sopa_s": "SOPA-s",
    "sota_s": "SOTA-s",
    "ce": "CE, finetuned",
    "focal": "Focal",
}
BLEND = "blend"
ENSEMBLE = "ensemble"
EARNED = "earned"
SECOND_LEVEL = "second level"
# What is submitted, in the paper's numbers that a competition file quotes (`published`).
FINAL = "final"
IMPORTED = "imported"
MEAN_LABEL = "mean"


def is_stage_2(stage: str) -> bool:
    """True for the names of a run after stage 2, whatever its loss, and of members from elsewhere,
    which are compared with these.

    >>> is_stage_2("AUC-M"), is_stage_2("CE")
    (True, False)
    """
    return stage in STAGE_2.values() or stage == IMPORTED
