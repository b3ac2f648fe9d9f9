"""How fast a training goes, and how long it will take."""

from __future__ import annotations

from typing import Protocol

from crystalgfn.gfn.trainer import Trainer


class Run(Protocol):
    """What is known of a training in progress."""

    step: int
    elapsed: float
    trainer: Trainer


class Pace:
    """How fast a training goes in this process.

    Args:
        run: the training.
    """

    #: Seconds that a rate is taken over, at least.
    SPAN = 2.0

    def __init__(self, run: Run) -> None:
        self.run = run
        self._start = self._lap = self._mark = (run.step, run.elapsed)
        self._rate = 0.0

    def lap(self) -> float:
        """Trained objects a second since the last lap."""
        before, self._lap = self._lap, (self.run.step, self.run.elapsed)
        return self._since(before)

    def rate(self) -> float:
        """Trained objects a second lately."""
        if not self._rate or self.run.elapsed - self._mark[1] > self.SPAN:
            self._rate = self._since(self._mark)
            self._mark = (self.run.step, self.run.elapsed)
        return self._rate

    def left(self) -> float | None:
        """Seconds to the end of the training, as it went so far; None before the first step."""
        trainer = self.run.trainer
        if trainer.seconds is not None:
            return max(trainer.seconds - self.run.elapsed, 0.0)
        steps = self.run.step - self._start[0]
        return (self.run.elapsed - self._start[1]) / steps * (trainer.steps - self.run.step) if steps else None

    def _since(self, mark: tuple[int, float]) -> float:
        return (self.run.step - mark[0]) * self.run.trainer.batch_size / max(self.run.elapsed - mark[1], 1e-9)
