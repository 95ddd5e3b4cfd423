"""Trainer checkpoints that can be trusted: sealed with checksums once whole, ignored and removed if not."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from crossdomain.store import sha256

logger = logging.getLogger(__name__)
SEAL = "sealed.json"


class SealCallback(TrainerCallback):
    """Writes the checksums of a trainer checkpoint beside it when all of its files are there."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called by the trainer after it has saved."""
        args.distributed_state.wait_for_everyone()  # each process saves its random state, and its share of the rest
        if state.is_world_process_zero:
            seal(Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def seal(checkpoint: Path) -> None:
    """Record the checksums of a checkpoint's files, atomically."""
    files = [file for file in checkpoint.rglob("*") if file.is_file() and file.name != SEAL]
    checksums = {str(file.relative_to(checkpoint)): sha256(file) for file in files}
    draft = checkpoint / f".{SEAL}"
    draft.write_text(json.dumps(checksums))
    draft.replace(checkpoint / SEAL)


def last_sealed(work: Path) -> Path | None:
    """The newest whole trainer checkpoint in a directory; those a killed process left half-written are removed."""
    checkpoints = sorted(work.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for checkpoint in reversed(checkpoints):
        if _whole(checkpoint):
            return checkpoint
        logger.warning("trainer checkpoint %s is not whole: removed", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def _whole(checkpoint: Path) -> bool:
    try:
        checksums = json.loads((checkpoint / SEAL).read_text())
        return all(sha256(checkpoint / name) == checksum for name, checksum in checksums.items())
    except (OSError, ValueError, AttributeError):
        return False
