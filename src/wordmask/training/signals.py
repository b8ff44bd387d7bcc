"""Who heeds SIGTERM and Ctrl-C: the process that trains, after its step; those that prepare pictures never."""

import signal
import sys


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a wish to stop after the present step; the second Ctrl-C stops at once."""

    def __enter__(self) -> "StopSignal":
        self.received = False
        try:
            self.before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: nobody sends us signals
            self.before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: object) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            print("\nStopping after this step, and saving.", file=sys.stderr)
        self.received = True


def leave_signals(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, and schedulers end whole groups: only the process that trains shall
    act on it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
