"""Running a notebook: its text, checked parameters, papermill, and an executed notebook beside the results."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import papermill
from papermill.exceptions import PapermillExecutionError
from pydantic import TypeAdapter, ValidationError

from crossdomain import chapters, paths, terminal
from crossdomain.parameters import given as settings_given
from crossdomain.parameters import parse_seeds
from crossdomain.profiles import SETTINGS, load_profile, parse_overrides

logger = logging.getLogger(__name__)
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}


class RunError(RuntimeError):
    """A notebook that could not be run; the message says why and what to do."""


def find_notebook(selector: str) -> Path:
    """The notebook of a number (`01`), a name or a path.

    Raises:
        RunError: there is none; the message lists those there are.
    """
    directory = paths.root() / "notebooks"
    notebooks = sorted(directory.glob("[0-9]*.py"))
    found = [path for path in notebooks if path.stem == selector or path.stem.split("_")[0] == selector]
    if Path(selector).is_file():
        found = [Path(selector)]
    if not found:
        there = ", ".join(path.stem for path in notebooks) or f"none in {directory}"
        raise RunError(f"no notebook {selector!r}: expected one of {there}, its number, or a path")
    return found[0]


def execute(selector: str, given: Mapping[str, Any]) -> Path:
    """Execute a notebook.

    Args:
        selector: number, name or path of the notebook.
        given: parameters of its parameters cell, or settings of the profile (dotted for one entry of a mapping).

    Returns:
        The executed notebook, in the directory of the run.

    Raises:
        RunError: a parameter is unknown or of the wrong type, or a cell failed (the partial notebook stays).
        ProfileError: a setting cannot be used.
    """
    source = find_notebook(selector)
    _pass_terminal_on()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / f"{source.stem}.ipynb"
        notebook = jupytext.read(source)
        notebook.metadata.setdefault("kernelspec", KERNEL)
        jupytext.write(notebook, text)
        known = papermill.inspect_notebook(str(text))
        parameters = check(source.stem, known, given)
        output = output_path(source.stem, known, parameters)
        partial = output.with_suffix(".partial.ipynb")
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            papermill.execute_notebook(
                str(text),
                str(partial),
                parameters,
                kernel_name=KERNEL["name"],
                progress_bar=False,
                log_output=True,
                cwd=str(paths.root()),
                extra_arguments=["--IPKernelApp.log_level=40"],  # errors alone: a local kernel over TCP is no news
            )
        except PapermillExecutionError as error:
            first = next((line for line in error.source.splitlines() if line.strip()), "")
            raise RunError(
                f"{source.stem}: cell {error.cell_index} failed, at `{first}`\n"
                f"{error.ename}: {error.evalue}\nThe notebook as far as it came: {partial}"
            ) from None
    partial.replace(output)
    return output


def check(notebook: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for papermill: those of the notebook as they are, settings of the profile gathered in `overrides`.

    Raises:
        RunError: a name is neither, or a value has another type than the parameters cell says.
        ProfileError: the profile does not take a setting or lacks what the chapter needs, or a domain cannot judge here.
    """
    parameters: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if name in known:
            parameters[name] = _typed(notebook, name, value, str(known[name]["inferred_type_name"]))
        elif name.partition(".")[0] in SETTINGS and "overrides" in known:
            settings[name] = value
        else:
            raise RunError(
                f"{notebook} has no parameter {name!r}; it has {', '.join(known)}; settings of the profile can be given, "
                f"too: {', '.join(SETTINGS)}"
            )
    if "profile" in known:
        overrides = {**parse_overrides(parameters.get("overrides")), **settings}
        if overrides:
            parameters["overrides"] = " ".join(f"{key}={_spelled(value)}" for key, value in overrides.items())
        loaded = load_profile(_value(known, parameters, "profile"), {**overrides, **settings_given(parameters)})
        chapters.check(loaded, notebook)
        loaded.check_rewards()
        if {loaded.generation_backend, loaded.rollouts} != {"transformers"}:
            from crossdomain import backends  # with all of torch, which this process needs for nothing else

            backends.check(loaded)
        parse_seeds(_value(known, parameters, "seeds"))
    return parameters


def output_path(notebook: str, known: Mapping[str, Any], parameters: Mapping[str, Any]) -> Path:
    """Where the executed notebook goes: into the directory of the run it describes."""
    if "profile" not in known:
        return paths.runs() / "notebooks" / f"{notebook}.ipynb"
    overrides = {**parse_overrides(parameters.get("overrides")), **settings_given(parameters)}
    profile = load_profile(_value(known, parameters, "profile"), overrides)
    return paths.run(profile.label, parse_seeds(_value(known, parameters, "seeds"))) / "notebooks" / f"{notebook}.ipynb"


def _value(known: Mapping[str, Any], parameters: Mapping[str, Any], name: str) -> str:
    return str(parameters.get(name, str(known[name]["default"]).strip("\"'")))


def _typed(notebook: str, name: str, value: Any, annotation: str) -> Any:
    allowed = [TYPES[part.strip()] for part in annotation.split("|") if part.strip() in TYPES]
    if not allowed or (value is None and "None" in annotation):
        return value
    if allowed == [str]:
        return value if isinstance(value, str) else _spelled(value)
    for kind in allowed:
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError:
            continue
    raise RunError(f"{notebook}: parameter {name} = {value!r}: expected {annotation}")


def _spelled(value: Any) -> str:
    """A value as an override spells it."""
    return value if isinstance(value, str) else json.dumps(value)


def _pass_terminal_on() -> None:
    """Let the kernel draw its bar on this terminal, or speak in lines through the log."""
    if sys.stderr.isatty():
        os.environ[terminal.VARIABLE] = os.ttyname(sys.stderr.fileno())
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm's bar for Jupyter is not used
    kernel = logging.getLogger("papermill")
    kernel.handlers.clear()
    kernel.propagate = False
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)  # papermill hands on what a cell writes to stderr as warnings
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.terminator = ""
    kernel.addHandler(handler)
