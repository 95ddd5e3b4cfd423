"""Runs Python that a language model wrote where it can do no harm, and says of each program whether it is right.

Each program runs alone, in a fresh interpreter inside a fresh sandbox of bubblewrap (0.7 or later): no network, a read-only
view of the interpreter and the system's libraries and of nothing else, an empty environment, a private /tmp, no devices, no
/proc, a process space of its own, a filter of system calls (`seccomp`), and limits of processor time, wall time, memory,
file size and output. So no program sees the host, or another program, or what another left behind.

A program only computes. It is given inputs, never what is expected; what comes back is compared out here, so that no
program can award itself a verdict. Without bubblewrap nothing is run at all.

What a program returns may depend on a clock or on chance, and whether it ends in time on the machine; hashing of strings is
fixed, so that everything else is the same in every run.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from crossdomain import sandbox_child
from crossdomain.seccomp import denying_filter

NOBODY = 65534
START_SECONDS = 120  # for a sandbox to stand, which takes a fiftieth of a second on an idle machine
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
OPTIONS = ("-P", "-s", "-S", "-B", "-X", "utf8")  # no site packages, nothing of the working directory, UTF-8


class SandboxError(RuntimeError):
    """Programs cannot be run safely here; the message says why, and what to do."""


class Verdict(StrEnum):
    """What became of a program."""

    PASSED = "passed"
    FAILED = "failed"  # other values, an exception (also for lack of memory), or it left without an answer
    TIMED_OUT = "timed out"
    KILLED = "killed"  # by a signal, or for too much output
    REFUSED = "refused"  # never run: too long, or not text


@dataclass(frozen=True)
class Check:
    """A program, and what a function of it must return.

    Attributes:
        program: source text.
        function: name of a function of one argument that it defines.
        inputs: arguments to call it with, one after another; numbers, strings, None, and tuples of them.
        expected: what each call must return: equal `repr`, so 1, 1.0 and True all differ.
    """

    program: str
    function: str
    inputs: tuple[object, ...]
    expected: tuple[object, ...]


@dataclass(frozen=True)
class Limits:
    """What one program may use. Those of memory, files and processor time hold for its only process."""

    cpu_seconds: int = 1
    wall_seconds: float = 10.0  # for one that waits, from when it starts; a busy machine must not change verdicts
    memory_bytes: int = 2**28
    file_bytes: int = 2**24  # of one file, and of /tmp
    open_files: int = 64
    output_bytes: int = 2**16
    program_characters: int = 2**14

    def of_process(self) -> dict[str, tuple[int, int]]:
        """Soft and hard limits by the name they have in `resource`."""
        return {
            "RLIMIT_CPU": (self.cpu_seconds, self.cpu_seconds + 1),  # a signal at the first, the end at the second
            "RLIMIT_AS": (self.memory_bytes, self.memory_bytes),
            "RLIMIT_FSIZE": (self.file_bytes, self.file_bytes),
            "RLIMIT_NOFILE": (self.open_files, self.open_files),
            "RLIMIT_NPROC": (0, 0),  # does not bind root, which is why `seccomp` denies processes as well
            "RLIMIT_CORE": (0, 0),
        }


class Sandbox:
    """Judges programs, some side by side, each in a sandbox of its own.

    Args:
        limits: of each program.
        workers: programs at a time; by default one a processor.

    Raises:
        SandboxError: this machine cannot confine programs.
    """

    def __init__(self, limits: Limits | None = None, workers: int | None = None) -> None:
        self.limits = limits or Limits()
        self.workers = workers or os.cpu_count() or 1
        self._command = _command(self.limits)
        try:
            self._filter = denying_filter(platform.machine())
        except ValueError as error:
            raise SandboxError(_advice(str(error))) from error
        self._child = Path(sandbox_child.__file__).read_text()
        self.judge([Check("def f(x): return x", "f", (1,), (1,))])  # raises if a sandbox cannot be set up

    def judge(self, checks: Sequence[Check]) -> list[Verdict]:
        """A verdict for each check, in order; what is asked twice runs once.

        Raises:
            SandboxError: a sandbox could not be set up (which is no program's doing).
        """
        requests = [self.request(check) for check in checks]
        distinct = {request: check.program for request, check in zip(requests, checks, strict=True)}
        with ThreadPoolExecutor(self.workers) as pool:
            outcomes = dict(zip(distinct, pool.map(self._outcome, distinct, distinct.values()), strict=True))
        return [
            outcome if isinstance(outcome, Verdict) else _compared(outcome, check)
            for outcome, check in zip((outcomes[request] for request in requests), checks, strict=True)
        ]

    def request(self, check: Check) -> bytes:
        """What the child in the sandbox is sent: all of a check but what is expected."""
        request = {
            "limits": self.limits.of_process(),
            "program": check.program,
            "function": check.function,
            "inputs": check.inputs,
        }
        return marshal.dumps(request, 2)  # equal requests are equal bytes, which later versions do not promise

    def _outcome(self, request: bytes, program: str) -> Verdict | bytes:
        """What a program reported; a verdict where it did not come to that."""
        if len(program) > self.limits.program_characters or not _is_text(program):
            return Verdict.REFUSED
        code, report = self._run(request)
        if len(report) > self.limits.output_bytes:
            return Verdict.KILLED
        if code in (-signal.SIGKILL, 128 + signal.SIGXCPU):
            return Verdict.TIMED_OUT
        return Verdict.KILLED if code > 128 else report

    def _run(self, request: bytes) -> tuple[int, bytes]:
        """Exit status (negative if ended from here) and report of one sandbox, all of whose processes are gone."""
        process = self._start()
        assert process.stdin and process.stderr
        with process.stderr as channel:
            with _ended_after(START_SECONDS, process):
                with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                    stdin.write(request)
                ready = channel.read(len(sandbox_child.READY))
            with _ended_after(self.limits.wall_seconds, process):
                # It ends when every process of the sandbox has closed it; bwrap's own do so only when all others are dead.
                report = channel.read(self.limits.output_bytes + 1)
                if len(report) > self.limits.output_bytes:
                    process.kill()
                while channel.read(2**16):
                    pass
        code = process.wait()
        if ready != sandbox_child.READY:
            said = (ready + report).decode(errors="replace").strip() or f"exit status {code}"
            raise SandboxError(_advice(f"bwrap could not set up a sandbox ({said})"))
        return code, report

    def _start(self) -> subprocess.Popen[bytes]:
        read, write = os.pipe()  # bwrap reads the filter to its end, so each takes a pipe of its own
        os.write(write, self._filter)
        os.close(write)
        try:
            return subprocess.Popen(
                [*self._command, "--seccomp", str(read), "--", interpreter(), *OPTIONS, "-c", self._child],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(read,),
                env=ENVIRONMENT,
                start_new_session=True,  # a keyboard interrupt must not look like a program's end
            )
        finally:
            os.close(read)


@contextlib.contextmanager
def _ended_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill the sandbox if what is done here takes longer."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _compared(report: bytes, check: Check) -> Verdict:
    """Text is compared with text: nothing that a program wrote is parsed, let alone loaded."""
    right = repr([repr(value) for value in check.expected]).encode()
    return Verdict.PASSED if report == right else Verdict.FAILED


def _is_text(program: str) -> bool:
    try:
        program.encode()
    except UnicodeEncodeError:
        return False
    return True


def interpreter() -> str:
    """The interpreter that a virtual environment is made from, so that no packages come with it."""
    return str(Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"))


def _command(limits: Limits) -> list[str]:
    """The bwrap command without filter and program.

    Its first process waits until the sandbox is gone; killing it kills all others.
    """
    bwrap = shutil.which("bwrap")
    if sys.platform != "linux" or bwrap is None:
        raise SandboxError(_advice("bubblewrap (the program bwrap) is not installed"))
    prefix = Path(sys.base_prefix)
    if Path.home().is_relative_to(prefix):
        raise SandboxError(
            f"the Python installation is {prefix}, which holds the home directory, so that programs could read it; "
            "expected an installation in a directory of its own"
        )
    command = [bwrap, "--unshare-user", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox", "--ro-bind", "/usr", "/usr"]
    for library in sorted(Path("/").glob("lib*")):
        link = [str(library.readlink()), str(library)] if library.is_symlink() else None
        command += ["--symlink", *link] if link else ["--ro-bind", str(library), str(library)]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if not prefix.is_relative_to("/usr"):
        command += ["--ro-bind", str(prefix), str(prefix)]
    command += ["--size", str(limits.file_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    return command


def _advice(problem: str) -> str:
    return (
        f"{problem}: programs that a model wrote are run in a sandbox or not at all. On Linux install bubblewrap "
        "(`apt-get install bubblewrap`, `dnf install bubblewrap`) and allow unprivileged user namespaces (Docker: "
        "--security-opt seccomp=unconfined; Ubuntu: an AppArmor profile for bwrap); or train without running programs: "
        "-p domains.code=expression_values"
    )
