"""Progress of long work: one bar for a person at a terminal, a line every so often in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from crossdomain.terminal import terminal

logger = logging.getLogger(__name__)
LINE_EVERY = 30.0  # seconds between lines of a log


class Progress:
    """Context manager that shows how far `total` steps have come."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0

    def __enter__(self) -> Self:
        self._screen = terminal()
        self._bar = tqdm(total=self.total, desc=self.label, file=self._screen, leave=False) if self._screen else None
        self._start = self._line = time.monotonic()
        return self

    def to(self, done: int, **values: float) -> None:
        """`done` of the steps are done; `values` are shown beside."""
        if self._bar is not None:
            self._bar.set_postfix({key: f"{value:.3g}" for key, value in values.items()}, refresh=False)
            self._bar.update(done - self.done)
        self.done = done
        now = time.monotonic()
        if self._bar is None and now - self._line >= LINE_EVERY and done < self.total:
            self._line = now
            shown = "  ".join(f"{key} {value:.3g}" for key, value in values.items())
            logger.info("%s: %d of %d after %.0f s  %s", self.label, done, self.total, now - self._start, shown)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._screen is not None and self._screen is not sys.stderr:
            self._screen.close()
        if kind is None:
            logger.info("%s: done in %.0f s", self.label, time.monotonic() - self._start)


class ProgressCallback(TrainerCallback):
    """Shows a trainer's steps through a `Progress`."""

    def __init__(self, progress: Progress, *shown: str) -> None:
        self.progress, self.shown = progress, shown

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Called by the trainer after every logged step."""
        values = {key: float(value) for key, value in (logs or {}).items() if key in self.shown and value is not None}
        self.progress.to(state.global_step, **values)
