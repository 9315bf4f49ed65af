"""A function that calls back, turned into an iterator: it runs in a thread of its own, and only while whoever
iterates waits for the next value. So the two are never at work at one time, and exceptions, Ctrl-C and
signals stay with whoever iterates.
"""

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
LEAVE_S = 10.0  # for the function to come to its next `hand_over` or `check` once nobody wants its values
WAKE_S = 1.0  # Python's own handler of a signal runs between two waits


class Closed(BaseException):
    """Nobody wants further values. No Exception, so that a library does not take it for one of its own."""


class Turns(Generic[T]):
    """Two threads that take turns."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.values: SimpleQueue[T | None] = SimpleQueue()  # None: the function has ended
        self.wanted: SimpleQueue[bool] = SimpleQueue()
        self.error: BaseException | None = None
        self.closed = False

    def hand_over(self, value: T) -> None:
        """To be called by the function: returns when the value has been dealt with. Raises Closed."""
        self.check()
        self.values.put(value)
        if not self.wanted.get():
            raise Closed

    def check(self) -> None:
        """To be called by the function now and then. Raises Closed where it is to end."""
        if self.closed:
            raise Closed

    def __iter__(self) -> Iterator[T]:
        """The values that the function hands over. Raises what the function raises."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            while (value := self._next()) is not None:
                yield value
                self.wanted.put(True)
            if self.error:
                raise self.error
        finally:
            self.closed = True
            self.wanted.put(False)
            thread.join(LEAVE_S)

    def _next(self) -> T | None:
        while True:
            try:
                return self.values.get(timeout=WAKE_S)
            except Empty:
                continue

    def _run(self) -> None:
        try:
            self.function()
        except Closed:
            pass
        except BaseException as error:
            self.error = error
        self.values.put(None)
