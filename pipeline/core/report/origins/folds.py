"""Section "Folds": how the folds were made, their balance, and which leaks were looked for."""

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.folds.audit_text import balance_column, group_lines
from pipeline.core.folds.shortcuts import shortcut_lines, shortcut_table
from pipeline.core.report.html import bullets, html_table, paragraph, source
from pipeline.core.report.inputs import Evidence


def folds(evidence: Evidence) -> str:
    """The audit: balance of the folds, groups, test twins, leaks, and what a split by image would
    have reported."""
    audit = evidence.audit
    how = ", ".join(f"{key} {value}" for key, value in audit["made"].items())
    lines = [
        f"Leaks from training into validation: {len(audit['leaks'])}.",
        *group_lines(audit),
        *shortcut_lines_of(evidence),
        *audit["warnings"],
    ]
    return (
        paragraph(
            f"All images of a patient, and all near-identical images, are in one fold ({how})."
        )
        + balance_table(audit)
        + bullets(lines)
        + shortcuts_table(audit)
        + image_split_table(audit)
        + source(
            f"{data_folder(evidence.name)}/folds_audit.json",
            f"python -m pipeline.folds {evidence.name} --audit",
        )
    )


def balance_table(audit: dict) -> str:
    """What each fold validates, a column a fold, and all of them together."""
    columns = [balance_column(row) for row in audit["folds"]]
    columns.append(balance_column({**audit["all"], "deviation": None}))
    # a label may have no row in some columns
    names = {}
    for column in columns:
        names |= dict.fromkeys(column)
    rows = [[name, *(column.get(name, "0") for column in columns)] for name in names]
    head = ["", *(f"fold {row['fold']}" for row in audit["folds"]), "all"]
    caption = "What each fold validates; in percent the deviation from the mean fold"
    return html_table(head, rows, caption)


def shortcut_lines_of(evidence: Evidence) -> list[str]:
    """What the search for shortcuts left out; an audit of before knows nothing of it."""
    if "shortcuts" not in evidence.audit:
        command = f"python -m pipeline.folds {evidence.name} --audit"
        return [f"Shortcuts were not looked for; `{command}` does."]
    return shortcut_lines(evidence.audit["shortcuts"])


def shortcuts_table(audit: dict) -> str:
    """How well facts of the file alone predict each label."""
    found = audit.get("shortcuts")
    if not found or not found["found"]:
        return ""
    head, *rows = shortcut_table(found)
    caption = (
        "Shortcuts: the AUC of each label by facts of the file alone (gradient boosting, out of "
        f"fold by patient, 95 % interval, {found['images']:,} images); a warning where the "
        f"interval lies above {found['limit']:g}"
    )
    return html_table(head, rows, caption)


def image_split_table(audit: dict) -> str:
    """By how much a split by image would have inflated the AUC, where `folds --why` was asked."""
    if not audit.get("why"):
        return ""
    rows = []
    for row in audit["why"]:
        rows.append(
            [
                f"{row['model']}, {row['label']}",
                f"{row['by_image']:.4f}",
                f"{row['by_group']:.4f}",
                f"{row['difference']:+.4f} ± {row['standard_error']:.4f}",
                row["images"],
                row["patients"],
            ]
        )
    head = ["model, label", "by image", "by patient", "difference ± SE", "images", "patients"]
    caption = (
        "Why by patient: the AUC of two cheap models under a split by image, and by groups of "
        "patients"
    )
    return html_table(head, rows, caption)
