"""Circuit breaker: stops requests to a server that does not answer, and retries at growing intervals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LONGEST_PAUSE = 3600.0


class CircuitBreaker:
    """Opens after several consecutive failures and closes at the first success.

    Without it, every call to a server that is down would wait for its time limit.
    """

    def __init__(self, tolerance: int, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a closed circuit breaker.

        Args:
            tolerance: consecutive failures after which it opens.
            pause: seconds it stays open the first time; they double each time, up to an hour.
            clock: monotonic clock in seconds.
        """
        self._tolerance = tolerance
        self._first_pause = self._pause = pause
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether requests must not be sent now."""
        with self._lock:
            return self._clock() < self._open_until

    @property
    def is_half_open(self) -> bool:
        """Whether it was open and has had no success since: a single request should test the server."""
        with self._lock:
            return self._failures >= self._tolerance

    def succeeded(self) -> None:
        """Record a successful request."""
        with self._lock:
            self._failures, self._pause, self._open_until = 0, self._first_pause, 0.0

    def failed(self) -> float | None:
        """Record a failed request; returns the seconds of the pause if the circuit opens, else None."""
        with self._lock:
            now = self._clock()
            self._failures += 1
            if self._failures < self._tolerance or now < self._open_until:
                return None
            pause = self._pause
            self._open_until = now + pause
            self._pause = min(2 * pause, _LONGEST_PAUSE)
            return pause
