"""The tree of a run's labels (`Run.hierarchy`): which label or auxiliary column is above which."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.config.run import Run
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class LabelTree:
    """Nodes, by number.

    names    the run's labels, then the auxiliary columns above them
    parents  the number of each one's parent, None for a root
    labels   how many of the first are labels
    """

    names: tuple[str, ...]
    parents: tuple[int | None, ...]
    labels: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The auxiliary columns among the nodes."""
        return self.names[self.labels :]

    def ancestors(self, node: int) -> list[int]:
        """The nodes above one, from its parent to its root.

        >>> LabelTree(("a", "b", "c"), (1, 2, None), 2).ancestors(0)
        [1, 2]
        """
        found = []
        above = self.parents[node]
        while above is not None:
            found.append(above)
            above = self.parents[above]
        return found

    def from_roots(self) -> list[int]:
        """All nodes, each after its parent.

        >>> LabelTree(("a", "b", "c"), (1, 2, None), 2).from_roots()
        [2, 1, 0]
        """
        return sorted(range(len(self.names)), key=lambda node: len(self.ancestors(node)))


def label_tree(run: Run, labels: Sequence[str]) -> LabelTree | None:
    """The tree of a run that predicts these labels, None for a run without a hierarchy; UserError
    for a name that is no node of it, a circle, and a column above no label."""
    if not run.hierarchy:
        return None
    start = f"run {run.name}: hierarchy"
    named = {*run.hierarchy, *run.hierarchy.values()}
    columns = tuple(one.column for one in run.auxiliary if one.column in named)
    for one in run.auxiliary:
        if one.column in named and one.classes:
            raise UserError(f"{start}: {one.column!r} has classes, and a parent is 1 or 0")
        if one.column in labels:
            raise UserError(f"{start}: {one.column!r} is a label already; leave auxiliary out")
    for name in (*run.hierarchy, *run.hierarchy.values()):
        if name not in labels and name not in columns:
            raise UserError(
                f"{start}: {name!r} is neither a label of the run ({', '.join(labels)}) nor one of "
                "its auxiliary columns"
            )
    for one in run.auxiliary[: len(columns)]:
        if one.column not in named:
            raise UserError(f"{start}: its columns come first in auxiliary, before {one.column!r}")

    # A circle has no root, so that the walk up comes back.
    for name in run.hierarchy:
        path = [name]
        while path[-1] in run.hierarchy:
            path.append(run.hierarchy[path[-1]])
            if path[-1] in path[:-1]:
                raise UserError(f"{start}: {' < '.join(path)} is a circle")

    names = (*labels, *columns)
    place = {name: number for number, name in enumerate(names)}
    parents = tuple(place.get(run.hierarchy.get(name)) for name in names)
    tree = LabelTree(names, parents, len(labels))
    used = {above for label in range(len(labels)) for above in tree.ancestors(label)}
    for number in range(len(labels), len(names)):
        if number not in used:
            raise UserError(f"{start}: {names[number]!r} is above no label of the run")
    return tree
