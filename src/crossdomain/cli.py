"""The command line: `crossdomain run | train | plan | book | claims | verify | promote | diagnose | rollback | store`."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: seeds run side by side, one thread each

import typer

from crossdomain import store_commands
from crossdomain.cli_common import Profile, Seeds, clear_errors

if TYPE_CHECKING:
    from crossdomain.checkpoint_pair import CheckpointPair

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(store_commands.app, name="store")

Parameters = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", help="key=value: a parameter or a setting of the profile.")
]
Before = Annotated[Path, typer.Option("--before", help="Directory of the checkpoint whose skill was good.")]
After = Annotated[Path, typer.Option("--after", help="Directory of the checkpoint that was trained on, and lost it.")]
PromptFiles = Annotated[
    list[Path],
    typer.Option(
        "--prompts",
        help="JSON Lines with a 'prompt' a line, a file a domain: first the skill to bring back, then what is to stay.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", help="Prompts of a file, at most.", min=4)]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", help="Where answers are cut off.", min=1)]


@app.callback()
def _main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _pairs(parameters: list[str] | None) -> dict[str, Any]:
    from crossdomain.profiles import ProfileError, parse_value

    found = {}
    for pair in parameters or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ProfileError(f"-p {pair!r}: expected key=value")
        found[key] = parse_value(value)
    return found


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="Number (01), name or path of a notebook.")],
    profile: Profile = "cpu",
    seeds: Seeds = "0",
    parameters: Parameters = None,
) -> None:
    """Execute a notebook with papermill; train what it needs and the store does not hold."""
    from crossdomain import runner

    with clear_errors():
        output = runner.execute(notebook, {"profile": profile, "seeds": seeds, **_pairs(parameters)})
    typer.echo(f"executed: {output}")


@app.command()
def train(
    profile: Profile = "cpu",
    seeds: Seeds = "0",
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", help="base, experts, sequence, refreshes (with their controls) or all, the default."),
    ] = None,
    parameters: Parameters = None,
) -> None:
    """Train and evaluate the checkpoints of chapter 1, without the notebook."""
    from crossdomain import backends, staging
    from crossdomain.lineage import Lineage
    from crossdomain.parameters import parse_seeds
    from crossdomain.profiles import ProfileError, load_profile

    with clear_errors():
        parts = parts or ["all"]
        if unknown := [part for part in parts if part not in staging.PARTS]:
            raise ProfileError(f"--part {unknown[0]}: expected one of {', '.join(staging.PARTS)}")
        loaded = load_profile(profile, _pairs(parameters))
        loaded.check_rewards()
        backends.check(loaded)
        for seed in parse_seeds(seeds):
            lineage = Lineage(loaded, seed)
            for part in parts:
                staging.train(lineage, part)


@app.command()
def plan(
    profile: Profile = "paper",
    gpus: Annotated[int, typer.Option(help="How many GPUs.", min=1)] = 8,
    gpu: Annotated[str, typer.Option(help="Their kind: a100, h100 or h200.")] = "h100",
    price: Annotated[float | None, typer.Option(help="Of a GPU-hour, in any currency.", min=0)] = None,
    tokens: Annotated[str, typer.Option(help="Mean tokens of responses: 'math=9000 qa=4000'.")] = "",
    parameters: Parameters = None,
) -> None:
    """Estimate time, memory, disk and cost of training and evaluating one seed on GPUs. Trains nothing."""
    from crossdomain import plan as planning
    from crossdomain.profiles import ProfileError, load_profile, parse_overrides
    from crossdomain.throughput import GPUS

    with clear_errors():
        if gpu not in GPUS:
            raise ProfileError(f"--gpu {gpu}: expected one of {', '.join(GPUS)}")
        lengths = parse_overrides(tokens)
        if bad := [pair for pair in lengths.items() if not isinstance(pair[1], int | float) or pair[1] <= 0]:
            raise ProfileError(f"--tokens {bad[0][0]}={bad[0][1]}: expected a positive number of tokens")
        loaded = load_profile(profile, _pairs(parameters))
        found = planning.plan(loaded, gpus, GPUS[gpu], lengths)
        measured = planning.measured(loaded)
    typer.echo(found.text(price))
    if len(measured):
        typer.echo(f"\nMeasured on the machine of this store:\n{planning.table(measured)}")


@app.command()
def book(
    profile: Profile = "cpu",
    seeds: Seeds = "0 1 2",
    parameters: Parameters = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="from the results in git; nothing is executed")
    ] = False,
) -> None:
    """Build the book from the executed notebooks and results of a run."""
    from crossdomain import book
    from crossdomain.parameters import parse_seeds
    from crossdomain.profiles import load_profile

    with clear_errors():
        settings = load_profile(profile, _pairs(parameters))
        page = book.build_reference(settings) if reference else book.build(settings, parse_seeds(seeds))
    typer.echo(f"the book: {page.as_uri()}")


@app.command()
def promote(
    profile: Profile = "cpu",
    seeds: Seeds = "0 1 2",
    parameters: Parameters = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", help="Other or fewer seeds, whose run has chapters that the first lacks. Repeatable."),
    ] = None,
) -> None:
    """Copy a run's small results into `results/`, where they serve as reference; refresh the README's table."""
    from crossdomain import book, gathering, paths, reference, verify
    from crossdomain.run import open_run

    with clear_errors(), tempfile.TemporaryDirectory() as scratch:
        opened, *others = (open_run(profile, some, **_pairs(parameters)) for some in (seeds, *(also or ())))
        gathered = gathering.gather(opened, others, Path(scratch) / "run")
        verify.complete(gathered)
        typer.echo(f"promoted to {reference.promote(gathered)}")
        book.fill_in_readme(paths.root())


@app.command()
def claims(profile: Profile = "cpu", seeds: Seeds = "0 1 2", parameters: Parameters = None) -> None:
    """Judge the paper's claims by the results of a run, and say why."""
    from crossdomain.claims import judge_run
    from crossdomain.run import open_run

    with clear_errors():
        for finding in judge_run(open_run(profile, seeds, **_pairs(parameters))):
            typer.echo(f"{finding.claim.id:4}{finding.verdict}: {finding.claim.statement}\n    {finding.reason}")


@app.command()
def verify(
    profile: Profile = "cpu",
    seeds: Annotated[str, typer.Option("--seed", "--seeds", help="RL seeds; by default those of the reference.")] = "",
    jobs: Annotated[int, typer.Option(help="Notebooks at a time.", min=1)] = 1,
) -> None:
    """Execute a run again, compare it with the reference in `results/` and write a report. Exit status 1 if they differ."""
    from crossdomain import report
    from crossdomain import verify as verification

    with clear_errors():
        found = verification.verify(profile, seeds, jobs)
        page = report.write(found, verification.directory(found))
    for line in report.in_short(found):
        typer.echo(line)
    typer.echo(f"report: {page.as_uri()}")
    if not found.agrees:
        raise typer.Exit(1)


@app.command()
def diagnose(
    before: Before,
    after: After,
    prompts: PromptFiles,
    base: Annotated[
        Path | None,
        typer.Option("--base", help="Directory of what `before` was trained from: compares both trainings."),
    ] = None,
    limit: Limit = 64,
    max_new_tokens: MaxNewTokens = 48,
    out: Annotated[Path, typer.Option("--out", help="Directory for report.html and tables as CSV.")] = Path(
        "diagnosis"
    ),
) -> None:
    """Compare two checkpoints of a model: edits, routes, predicted and actual damage, conflict modules, rollback.

    Needs no labels. Damage is the divergence from `before` on its own answers. Models of the families Qwen3, Llama (with
    SmolLM2), Gemma 3 (text) and GPT-2, saved as safetensors, on a CPU; a part of the model at a time is in memory.
    """
    from rich.console import Console

    from crossdomain import diagnosis_report
    from crossdomain.diagnosis import Diagnosis

    found = Diagnosis(_pair(before, after, prompts, base, limit, max_new_tokens))
    with clear_errors():
        page = diagnosis_report.write(found, out)
    diagnosis_report.show(found, Console())
    typer.echo(f"report: {page.resolve().as_uri()}")


@app.command()
def rollback(
    before: Before,
    after: After,
    prompts: PromptFiles,
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            help="How much of the ranking by F·δ² to keep as the set that is taken back, in percent of the parameters.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory of the repaired checkpoint; must not exist.")],
    limit: Limit = 64,
    max_new_tokens: MaxNewTokens = 48,
) -> None:
    """Write a repaired checkpoint: `after`, with the coordinates that hurt the skill most as they were in `before`.

    `--keep 5%` ranks all parameters by F·δ² and takes the first 5 % back; nothing is trained. The result loads wherever
    `after` loads. What it returns and costs is measured and printed, as `diagnose` does.
    """
    from crossdomain import diagnosis_report
    from crossdomain.checkpoint_rollback import check, parse_percent
    from crossdomain.diagnosis import Diagnosis

    with clear_errors(ValueError, FileExistsError):
        percent = parse_percent(keep)
        check(out)
    found = Diagnosis(_pair(before, after, prompts, None, limit, max_new_tokens))
    with clear_errors():
        for line in diagnosis_report.repair(found, percent, out):
            typer.echo(line)
    typer.echo(f"the repaired checkpoint: {out}")


def _pair(
    before: Path, after: Path, prompts: list[Path], base: Path | None, limit: int, max_new_tokens: int
) -> CheckpointPair:
    """The checkpoints, checked, with what they will take said before it starts."""
    from crossdomain import paths
    from crossdomain.checkpoint_pair import CheckpointPair
    from crossdomain.store import Store
    from crossdomain.training import quiet
    from crossdomain.words import diagnosis as say

    quiet()
    store = Store(paths.store())
    with clear_errors(ValueError, TypeError, OSError):
        pair = CheckpointPair(before, after, prompts, base, limit=limit, max_new_tokens=max_new_tokens, store=store)
    typer.echo(say.needs(pair))
    return pair
