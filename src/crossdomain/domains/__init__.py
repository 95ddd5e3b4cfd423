"""The domains: four for a tiny model, five for a real small language model, and how a reader's own is found."""

from __future__ import annotations

import importlib

from crossdomain.domains.base import Domain, Item

BUILT_IN = {
    "arithmetic": "crossdomain.domains.arithmetic:Arithmetic",
    "programs": "crossdomain.domains.programs:Programs",
    "facts": "crossdomain.domains.facts:Facts",
    "writing": "crossdomain.domains.writing:Writing",
    "worded_arithmetic": "crossdomain.domains.worded_arithmetic:WordedArithmetic",
    "python_functions": "crossdomain.domains.python_functions:PythonFunctions",
    "expression_values": "crossdomain.domains.expression_values:ExpressionValues",
    "categories": "crossdomain.domains.categories:Categories",
    "sentences": "crossdomain.domains.sentences:Sentences",
}

__all__ = ["BUILT_IN", "Domain", "Item", "load_domain"]


def load_domain(name: str) -> Domain:
    """The domain of a built-in name or of `package.module:Class`.

    Raises:
        ValueError: the name is neither, the module or class is missing, or the class is not a whole `Domain`.
    """
    path = BUILT_IN.get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        raise ValueError(f"unknown domain {name!r}: expected one of {', '.join(BUILT_IN)} or 'package.module:Class'")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"domain {name!r} cannot be loaded ({error}): expected an importable 'package.module:Class'"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Domain)):
        raise ValueError(f"domain {name!r} is not a subclass of crossdomain.domains.Domain")
    missing = [*sorted(found.__abstractmethods__), *(a for a in ("title", "max_new_tokens") if not hasattr(found, a))]
    if missing:
        raise ValueError(f"domain {name!r} does not define {', '.join(missing)}")
    domain: Domain = found()
    return domain
