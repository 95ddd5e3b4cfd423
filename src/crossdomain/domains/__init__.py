"""The domains: for a tiny model, for a small language model, of public data sets, and how a reader's own is found."""

from __future__ import annotations

import importlib

from crossdomain.domains.base import Domain, Item
from crossdomain.domains.hub import HubDomain, HubSettings

BUILT_IN = {
    "arithmetic": "crossdomain.domains.arithmetic:Arithmetic",
    "programs": "crossdomain.domains.programs:Programs",
    "facts": "crossdomain.domains.facts:Facts",
    "writing": "crossdomain.domains.writing:Writing",
    "worded_arithmetic": "crossdomain.domains.worded_arithmetic:WordedArithmetic",
    "python_functions": "crossdomain.domains.python_functions:PythonFunctions",
    "expression_values": "crossdomain.domains.expression_values:ExpressionValues",
    "categories": "crossdomain.domains.categories:Categories",
    "comparisons": "crossdomain.domains.comparisons:Comparisons",
    "sentences": "crossdomain.domains.sentences:Sentences",
}
HUB = {
    "openr1_math": "crossdomain.domains.openr1_math:OpenR1Math",
    "code_tests": "crossdomain.domains.code_tests:CodeTests",
    "supergpqa": "crossdomain.domains.supergpqa:SuperGPQA",
    "creative_writing": "crossdomain.domains.creative_writing:CreativeWriting",
}

__all__ = ["BUILT_IN", "HUB", "Domain", "Item", "load_domain"]


def load_domain(name: str, hub: HubSettings | None = None, model: str = "") -> Domain:
    """The domain of a built-in name or of `package.module:Class`.

    Args:
        name: of the domain.
        hub: settings of a domain that reads a data set.
        model: whose tokenizer counts the tokens of such a domain's prompts.

    Raises:
        ValueError: the name is neither, the module or class is missing, the class is not a whole `Domain`, or it reads a
            data set and there are no settings for that.
    """
    path = {**BUILT_IN, **HUB}.get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        raise ValueError(
            f"unknown domain {name!r}: expected one of {', '.join({**BUILT_IN, **HUB})} or 'package.module:Class'"
        )
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
    if not issubclass(found, HubDomain):
        domain: Domain = found()
        return domain
    if hub is None:
        raise ValueError(
            f"domain {name!r} reads a data set, which needs the settings of hub; see profiles/paper.yaml, or extend it"
        )
    return found(hub, model)
