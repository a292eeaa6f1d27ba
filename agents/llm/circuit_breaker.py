"""Stops asking a server that does not answer, and tries again ever more rarely."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LONGEST_PAUSE = 3600.0


class Circuit:
    """Opens after several failures in a row; closes at the first success.

    Without it a run would wait out every time limit of every call to a server that is gone.
    """

    def __init__(self, tolerance: int, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args:
            tolerance: failures in a row after which it opens.
            pause: seconds it stays open the first time; twice as long each further time, an hour at most.
            clock: seconds, never going back.
        """
        self._tolerance = tolerance
        self._first_pause = self._pause = pause
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """The server should be left alone for now."""
        with self._lock:
            return self._clock() < self._open_until

    @property
    def is_doubtful(self) -> bool:
        """It was open and has not had a success since: try with a single call."""
        with self._lock:
            return self._failures >= self._tolerance

    def succeeded(self) -> None:
        """A call was answered."""
        with self._lock:
            self._failures, self._pause, self._open_until = 0, self._first_pause, 0.0

    def failed(self) -> float | None:
        """A call was not answered; the seconds of the pause where this opens the circuit."""
        with self._lock:
            now = self._clock()
            self._failures += 1
            if self._failures < self._tolerance or now < self._open_until:
                return None
            pause = self._pause
            self._open_until = now + pause
            self._pause = min(2 * pause, _LONGEST_PAUSE)
            return pause
