"""Parameters of notebooks and commands as they are written: seeds, and settings of a profile among others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossdomain.profiles import SETTINGS, ProfileError


def given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a profile that parameters set: those that are not "" or -1, which stand for the profile's value."""
    return {key: value for key, value in parameters.items() if key in SETTINGS and value not in ("", -1)}


def parse_seeds(seeds: str | int) -> list[int]:
    """Seeds as numbers.

    Raises:
        ProfileError: one is not an integer of 0 or more, or appears twice.
    """
    words = str(seeds).replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdigit() for word in words) or len({*words}) < len(words):
        raise ProfileError(f"seeds = {seeds!r}: expected different integers of 0 or more, separated by blanks: '0 1 2'")
    return [int(word) for word in words]
