"""What commands share: the options that name a run, and one clear message for what a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Profile = Annotated[str, typer.Option("--profile", help="Name of a profile, or a YAML file.")]
Seeds = Annotated[str, typer.Option("--seed", "--seeds", help="RL seed, or several separated by blanks.")]


@contextmanager
def clear_errors(*others: type[Exception]) -> Iterator[None]:
    """One clear message instead of a traceback, for what a user can mend: errors of our own, and `others`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (*_errors(), *others)):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _errors() -> tuple[type[Exception], ...]:
    """What a user can mend. Its modules import all of torch: they are loaded only once something failed."""
    from crossdomain.backends import BackendError
    from crossdomain.book import BookError
    from crossdomain.domains.hub import DataError
    from crossdomain.evidence import ClaimError
    from crossdomain.judge import JudgeError
    from crossdomain.launch import LaunchError
    from crossdomain.profiles import ProfileError
    from crossdomain.runner import RunError
    from crossdomain.sandbox import SandboxError
    from crossdomain.store import StoreError
    from crossdomain.verify import VerifyError

    return (
        *(ProfileError, RunError, StoreError, BookError, ClaimError, VerifyError, DataError, JudgeError, BackendError),
        *(LaunchError, SandboxError, FileNotFoundError),
    )
