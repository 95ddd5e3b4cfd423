"""What runs inside the sandbox: it limits itself, runs one program, and reports what its function returned.

`sandbox` sends this file's text to an isolated interpreter. It imports what costs no time to import, since each program
gets an interpreter of its own. The report holds values, never a verdict, and nothing here knows which values are right: a
program that takes over this process can do no better than to return them.
"""

from __future__ import annotations

import marshal
import os
import resource
import sys
from typing import Any

READY = b"ready\n"  # the sandbox stands, and the program's time begins


def main() -> None:
    """Answer the request on standard input on standard error, which the program itself does not get to see."""
    channel = os.dup(2)
    os.dup2(1, 2)  # standard output is /dev/null
    request = marshal.load(sys.stdin.buffer)
    for name, limits in request["limits"].items():
        resource.setrlimit(getattr(resource, name), limits)
    os.write(channel, READY)
    try:
        namespace: dict[str, Any] = {"__name__": "program"}
        exec(compile(request["program"], "<program>", "exec"), namespace)
        function = namespace[request["function"]]
        report = repr([repr(function(value)) for value in request["inputs"]]).encode()
    except BaseException:  # whatever a program raises, SystemExit included, it did not return
        report = b""
    with os.fdopen(channel, "wb") as file:
        file.write(report)
    os._exit(0)  # nothing the program left behind, such as an exit handler, runs


if __name__ == "__main__":
    main()
