"""A Sphinx extension: pages carry each script once, and none of Thebe's, which this book does not use.

Jupyter Book always adds Thebe, whose inline settings Sphinx then writes twice: a script error on every page.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("html-page-context", _lean, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _lean(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    kept: dict[tuple[str, str], Any] = {}
    for script in context.get("script_files", []):
        name = str(getattr(script, "filename", script) or "")
        body = str(getattr(script, "attributes", {}).get("body") or "")
        if "thebe" not in (name + body).lower():
            kept.setdefault((name, body), script)
    context["script_files"] = list(kept.values())
