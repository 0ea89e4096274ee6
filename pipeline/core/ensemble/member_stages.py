"""Which weights of a run are members of the ensemble, stage 1's or stage 2's: `Run.stage`.

    chosen, facts = choose_stages(asked, before, after, truth, ...)
    print(*stage_lines(ensemble_json["stages"]), sep="\\n")

"best" follows the rule of every choice here: the simplest, stage 1, unless the gain of stage 2 out
of fold has an interval above 0. The choice is made on the rows that are scored afterwards; of two
candidates it flatters the scores by far less than their interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.core.config.run import stage_1_member
from pipeline.core.ensemble.members import Member
from pipeline.core.ensemble.scores import difference_row, difference_text


def choose_stages(
    asked: Mapping[str, str],
    before: Sequence[Member],
    after: Sequence[Member],
    truth: np.ndarray,
    patients: np.ndarray,
    units_of: Callable[[np.ndarray], np.ndarray],
) -> tuple[list[Member], dict[str, dict]]:
    """(the members that are averaged, what ensemble.json says of each run that asks for another
    stage than "finetuned").

    asked: run -> `Run.stage`; before, after: every run after stage 1 and 2; truth: (U, K) and
    patients: (U,) of the units; units_of: image scores (n, K) -> unit scores (U, K). A member of
    stage 1 is named by `stage_1_member`, since both may be there.
    """
    stage_1 = {member.name: member for member in before}
    members = []
    facts = {}
    for member in after:
        stage = asked.get(member.name, "finetuned")
        if stage == "finetuned":
            members.append(member)
            continue

        # both, one, or the later one where it has earned its place
        earlier = stage_1[member.name]
        scores = [units_of(one.out_of_fold) for one in (member, earlier)]
        row = difference_row(member.stage, earlier.stage, *scores, truth, patients)
        chosen = {"both": [earlier, member], "pretrained": [earlier]}.get(stage)
        if chosen is None:
            chosen = [member if row and row["low"] > 0 else earlier]
        facts[member.name] = {
            "asked": stage,
            "members": [one.stage for one in chosen],
            "difference": row,
        }
        for one in chosen:
            is_earlier = one is earlier
            members.append(replace(one, name=stage_1_member(one.name)) if is_earlier else one)
    return members, facts


def stage_lines(facts: Mapping[str, Mapping]) -> list[str]:
    """`stages` of ensemble.json in words, a sentence for each run that it names."""
    lines = []
    for run, said in facts.items():
        names = " and ".join(said["members"])
        verb = "are" if len(said["members"]) > 1 else "is"
        line = f"{run}: {names} {verb} averaged (stage={said['asked']!r})"
        row = said["difference"]
        if row:
            line += f"; {row['first']} - {row['second']} out of fold: {difference_text(row)}"
        if said["asked"] == "best":
            later_won = row is not None and row["low"] > 0
            line += ", above 0" if later_won else ", not above 0, so the simpler one"
            line += "; chosen on the rows that are scored"
        lines.append(f"{line}.")
    return lines
