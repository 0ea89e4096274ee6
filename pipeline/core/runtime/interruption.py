"""Signals that end a stage by an exception, and the few lines that such an exception must not cut:
those between making something temporary and knowing its name, and those that remove it."""

import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


class Held:
    """Whether the main thread is in a block that signals do not cut, and what one that came would
    have done."""

    now = False
    end: Callable[[], None] | None = None


class uninterrupted:  # noqa: N801  # used as `with uninterrupted():`
    """A block that a signal does not cut: its exception is raised when the block has ended.

    Masking the signal would not do: it is then delivered to another thread, and Python raises its
    exception in the main thread all the same. Other threads get no exceptions.
    """

    holds = True

    def __enter__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        self.before = Held.now
        if self.main:
            Held.now = self.holds
            raise_held()

    def __exit__(self, *_: object) -> None:
        if self.main:
            Held.now = self.before
            raise_held()


class interruptible(uninterrupted):  # noqa: N801
    """Within a block that signals do not cut, one that they do: what must be cleared away after it
    is, whenever they come."""

    holds = False


def raise_held() -> None:
    """Raise what a signal asked for meanwhile, outside blocks that must not be cut."""
    if not Held.now and Held.end:
        end, Held.end = Held.end, None
        end()


def interrupting(end: Handler) -> Handler:
    """A handler that calls `end`, which raises, now or when the `uninterrupted` block has ended."""

    def handle(number: int, frame: FrameType | None) -> None:
        if Held.now:
            Held.end = lambda: end(number, frame)
        else:
            end(number, frame)

    return handle
