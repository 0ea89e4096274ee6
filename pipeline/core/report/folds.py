"""Report section: the folds, how they were made, what leaks were looked for."""

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.folds.balance import balance_column, group_lines
from pipeline.core.report.html import bullets, paragraph, source, table
from pipeline.core.report.inputs import Evidence


def folds(evidence: Evidence) -> str:
    """The audit: balance of the folds, groups, test twins, leaks, and what a split by image would
    have reported."""
    audit = evidence.audit
    columns = [balance_column(row) for row in audit["folds"]] + [
        balance_column({**audit["all"], "deviation": None})
    ]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "0") for column in columns)] for name in names]
    head = ["", *(f"fold {row['fold']}" for row in audit["folds"]), "all"]
    made = table(
        head, rows, "What each fold validates; in percent the deviation from the mean fold"
    )
    lines = [
        f"Leaks from training into validation: {len(audit['leaks'])}.",
        *group_lines(audit),
        *audit["warnings"],
    ]
    made_how = ", ".join(f"{key} {value}" for key, value in audit["made"].items())
    return (
        paragraph(
            f"All images of a patient, and all near-identical images, are in one fold ({made_how})."
        )
        + made
        + bullets(lines)
        + why(audit)
        + source(
            f"{data_folder(evidence.name)}/folds_audit.json",
            f"python -m pipeline.folds {evidence.name} --audit",
        )
    )


def why(audit: dict) -> str:
    """What a split by image would have added for nothing, where that was asked."""
    if not audit.get("why"):
        return ""
    rows = [
        [
            f"{row['model']}, {row['label']}",
            f"{row['by_image']:.4f}",
            f"{row['by_group']:.4f}",
            f"{row['difference']:+.4f} ± {row['standard_error']:.4f}",
            row["images"],
            row["patients"],
        ]
        for row in audit["why"]
    ]
    return table(
        ["model, label", "by image", "by patient", "difference ± SE", "images", "patients"],
        rows,
        "Why by patient: the AUC of two cheap models under a split by image, and by groups of "
        "patients",
    )
