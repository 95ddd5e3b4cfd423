"""A process of a stage as `crossdomain.stage_process` runs it, but with recorded responses, shared out among the processes.

Sampling differs between processes by design: each has random numbers of its own. What is left without it is the update.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor
from trl.trainer.grpo_trainer import GRPOTrainer

from crossdomain import stage_process


def recorded(self: Any, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
    """This process' part of a step's responses, to what must be its part of the prompts."""
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    assert all(isinstance(parameter, DTensor) == sharded for parameter in self.model.parameters())
    step = json.loads(Path(os.environ["RECORDED"]).read_text())[self.state.global_step]
    count, rank = len(prompt_ids), self.accelerator.process_index
    mine = slice(rank * count, (rank + 1) * count)
    assert count * self.accelerator.num_processes == len(step["prompts"])
    assert prompt_ids == step["prompts"][mine]
    if rank == 1 and os.environ.get("FAIL_AT") == str(self.state.global_step):
        raise ValueError("a planted failure")
    return step["responses"][mine], None


if __name__ == "__main__":
    GRPOTrainer._generate_single_turn = recorded
    stage_process.main(sys.argv[1])
