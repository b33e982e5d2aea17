"""How far a long command is.

``Line`` rewrites itself on a terminal, and is a plain line now and then in a log. ``FrameCounter`` counts frames on a
terminal, and is silent elsewhere.
"""

import sys
import time
from typing import Self, TextIO

TERMINAL_EVERY = 0.5  # seconds
LOG_EVERY = 10.0  # seconds at least; later a quarter of the time that has passed, so that a log of hours stays short


class Line:
    """Writes to stderr, or to ``to``. What is said too soon after the last line is dropped."""

    def __init__(self, to: TextIO | None = None) -> None:
        self.to = to or sys.stderr
        self.live = self.to.isatty()
        self.started = time.monotonic()
        self.shown = self.started - (TERMINAL_EVERY if self.live else 0)
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, text: str) -> None:
        now = time.monotonic()
        pause = TERMINAL_EVERY if self.live else max(LOG_EVERY, (now - self.started) / 4)
        if now - self.shown < pause:
            return
        self.shown = now
        if self.live:
            print(f"\r{text:<{self._width}}", end="", file=self.to, flush=True)
            self._width = len(text)
        else:
            print(text, file=self.to, flush=True)

    def end(self) -> None:
        """Takes the line off the terminal, so that what is printed next stands alone."""
        if self.live and self._width:
            print(f"\r{' ' * self._width}\r", end="", file=self.to, flush=True)
            self._width = 0


def clock(seconds: float) -> str:
    """'0:01:05'."""
    left = int(seconds)
    return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"


class FrameCounter:
    """One line on a terminal: frames done, frames a second and time left; silent elsewhere.

    With ``about`` the ``total`` is a guess, and the line says so.
    """

    def __init__(self, total: int, about: bool = False) -> None:
        self.total, self.about = total, about
        self.done, self.started, self.shown = 0, time.monotonic(), 0.0
        self.live = sys.stderr.isatty()

    def show(self, done: int) -> None:
        self.done, now = done, time.monotonic()
        if self.live and now - self.shown > TERMINAL_EVERY:
            self.shown = now
            print(f"\r{self.line(now - self.started)}", end="", file=sys.stderr, flush=True)

    def line(self, elapsed: float) -> str:
        """The line after ``elapsed`` seconds."""
        rate = self.done / max(elapsed, 1e-9)
        left = f"{clock(max(self.total - self.done, 0) / rate)} left" if self.done else "starting"
        total = f"about {self.total:,}" if self.about else f"{self.total:,}"
        return f"{self.done:,} of {total} frames, {rate:,.0f} frames/s, {left}{self.details(elapsed)}  "

    def details(self, elapsed: float) -> str:
        """What else there is to say; nothing here."""
        return ""

    def end(self) -> None:
        if self.live:
            print(f"\r{self.line(time.monotonic() - self.started)}", file=sys.stderr)
