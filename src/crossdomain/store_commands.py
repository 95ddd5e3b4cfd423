"""The commands `crossdomain store list | verify | prune | pack | unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossdomain.cli_common import Profile, Seeds, clear_errors

app = typer.Typer(no_args_is_help=True, help="The store of checkpoints and evaluations.")


@app.command("list")
def list_() -> None:
    """What the store holds."""
    from crossdomain import paths
    from crossdomain.store import Store

    store = Store(paths.store())
    total = 0
    for artifact in store.artifacts():
        total += artifact.size
        made, seconds = artifact.manifest["made"], artifact.manifest["wall_seconds"]
        typer.echo(f"{artifact.key:70} {artifact.size / 2**20:8.1f} MiB {seconds:8.0f} s  {made}")
    leftovers = store.leftovers()
    typer.echo(f"{total / 2**20:.0f} MiB in {store.root}; {len(leftovers)} interrupted or damaged")


@app.command("verify")
def verify() -> None:
    """Compare every file with its checksum; set damaged artifacts aside. Exit status 1 if there are any."""
    from crossdomain import paths
    from crossdomain.store import Store

    store = Store(paths.store())
    keys = [artifact.key for artifact in store.artifacts()]
    damaged = [key for key in keys if store.find(key) is None]
    typer.echo(f"{len(keys) - len(damaged)} whole, {len(damaged)} damaged and set aside")
    if damaged:
        raise typer.Exit(1)


@app.command("prune")
def prune(yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only list.")] = False) -> None:
    """Delete what no run uses any more: interrupted and damaged work, and artifacts no run refers to."""
    from crossdomain import paths
    from crossdomain.store import Store

    store = Store(paths.store())
    used = {path.read_text().strip() for path in paths.runs().glob("*/*/uses/*")}
    unused = [artifact.path for artifact in store.artifacts() if artifact.key not in used]
    for path in [*store.leftovers(), *unused]:
        typer.echo(f"{'deleted' if yes else 'not used'}: {path}")
        if yes:
            store.remove(path)
    if not yes:
        typer.echo("nothing was deleted; add --yes to delete these")


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(help="The archive to write, such as measurements.tar.xz.")],
    profile: Profile = "cpu",
    seeds: Seeds = "0",
) -> None:
    """Write what was measured in a run to one small file: all that the store has of it, without the weights."""
    from crossdomain import pack, paths, verify
    from crossdomain.parameters import parse_seeds
    from crossdomain.profiles import load_profile
    from crossdomain.store import Store

    with clear_errors(ValueError):
        store = Store(paths.store())
        used = verify.used(store, load_profile(profile), parse_seeds(seeds))
        count = pack.pack((artifact for artifact in store.artifacts() if artifact.key in used), file)
    typer.echo(f"{count} artifacts in {file}, {file.stat().st_size / 2**20:.1f} MiB")


@app.command()
def unpack(files: Annotated[list[Path], typer.Argument(help="Archives that `store pack` wrote.")]) -> None:
    """Add what was measured elsewhere to the store. Chapters that need no more are then rendered without training."""
    from crossdomain import pack, paths
    from crossdomain.store import Store

    with clear_errors(ValueError):
        for file in files:
            added, known = pack.unpack(file, Store(paths.store()))
            typer.echo(f"{file}: {added} artifacts added, {known} were there")
