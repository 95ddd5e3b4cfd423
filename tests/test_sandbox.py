"""The sandbox against programs that try to get out of it, to stall it, or to be judged better than they are.

What a program can reach is asked by probes, programs that say what they found. Each probe also runs without the sandbox,
where it must find the thing: so none passes because it is broken.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdomain import sandbox as module
from crossdomain.sandbox import Check, Limits, Sandbox, SandboxError, Verdict

PASSED, FAILED, TIMED_OUT, KILLED, REFUSED = Verdict
INPUTS = tuple(range(-1, 10))
DOUBLED = tuple(2 * x for x in INPUTS)
HONEST = "def f(x):\n    return 2 * x"
SECRET = "correct horse battery staple"
ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # a filter of system calls that returns SECCOMP_RET_ALLOW


def doubles(program: str) -> Check:
    """A check of a program that should return twice its argument."""
    return Check(program, "f", INPUTS, DOUBLED)


def found(sandbox: Sandbox, probe: str, expected: object) -> bool:
    """Whether a probe, the body of a function, finds that in the sandbox."""
    return sandbox.judge([Check(as_function(probe), "f", (0,), (expected,))]) == [PASSED]


def outside(probe: str) -> object:
    """What a probe of ours finds without a sandbox."""
    code = f"{as_function(probe)}\nprint(repr(f(0)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, input="a line\n"
    )
    return done.stdout.strip()


def as_function(probe: str) -> str:
    lines = probe.strip().splitlines()
    return "\n".join(
        ["def f(x):", "    try:", *(f"        {line}" for line in lines), "    except OSError: return 'denied'"]
    )


# --- Right and wrong programs ---


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        (HONEST, PASSED),
        ("f = lambda x: x + x", PASSED),
        ("import math\ndef f(x):\n    return int(math.fsum([x, x]))", PASSED),
        ("def f(x):\n    print('thinking', x)\n    return 2 * x", PASSED),
        ("import sys\ndef f(x):\n    sys.stderr.write('x' * 10**6)\n    return 2 * x", PASSED),
        ("def f(x): return 2.0 * x", FAILED),
        ("def f(x): return str(2 * x)", FAILED),
        ("def f(x): return 2 * x if x < 9 else 0", FAILED),
        ("def f(x): pass", FAILED),
        ("def f(): return 2", FAILED),
        ("def g(x): return 2 * x", FAILED),
        ("f = 2", FAILED),
        ("def f(x): return 1 / 0", FAILED),
        ("def f(x) return 2 * x", FAILED),
        ("raise SystemExit(0)", FAILED),
        ("raise KeyboardInterrupt", FAILED),
        ("", FAILED),
    ],
)
def test_a_program_passes_if_each_call_returns_the_value_expected(
    sandbox: Sandbox, program: str, verdict: Verdict
) -> None:
    assert sandbox.judge([doubles(program)]) == [verdict]


def test_equal_values_of_different_types_are_told_apart(sandbox: Sandbox) -> None:
    values = [1, 1.0, True, "1", (1,), None]
    checks = [Check(f"def f(x): return {value!r}", "f", (0,), (other,)) for value in values for other in values]
    expected = [PASSED if value is other else FAILED for value in values for other in values]
    assert sandbox.judge(checks) == expected


def test_inputs_arrive_with_their_types(sandbox: Sandbox) -> None:
    inputs = (1, True, 1.0, "é", None, (1, "a"), -(10**30))
    assert sandbox.judge([Check("def f(x): return x", "f", inputs, inputs)]) == [PASSED]


def test_verdicts_come_in_order_and_equal_checks_run_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[bytes] = []
    run = sandbox._run
    monkeypatch.setattr(sandbox, "_run", lambda request: ran.append(request) or run(request))
    wrong = "def f(x): return 3 * x"
    assert sandbox.judge([doubles(p) for p in (HONEST, wrong, HONEST, HONEST)]) == [PASSED, FAILED, PASSED, PASSED]
    assert len(ran) == 2
    assert sandbox.judge([]) == []


def test_strings_hash_the_same_in_every_run(sandbox: Sandbox) -> None:
    expected = subprocess.run(
        [sys.executable, "-c", "print(hash('spam'))"], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True
    )
    assert sandbox.judge([Check("def f(x): return hash(x)", "f", ("spam",), (int(expected.stdout),))]) == [PASSED]


# --- Programs that stall, grow or flood: all end, and beside them honest ones are judged as ever ---

HOSTILE = {
    "infinite loop": ("def f(x):\n    while True: pass", {TIMED_OUT}),
    "infinite loop on import": ("while True: pass", {TIMED_OUT}),
    "loop that ignores the signal of its limit": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f(x):\n    while True: pass",
        {KILLED},
    ),
    "loop in C": ("def f(x): return 10**10**9", {FAILED}),
    "sleep": ("import time\ndef f(x): time.sleep(3600)", {TIMED_OUT}),
    "sleep that blocks all signals": (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(3600)",
        {TIMED_OUT},
    ),
    "closes the channel and sleeps": ("import os, time\nos.closerange(0, 64)\ntime.sleep(3600)", {TIMED_OUT}),
    "fork bomb": ("import os\ndef f(x):\n    while True: os.fork()", {FAILED}),
    "persistent fork bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        {TIMED_OUT},
    ),
    "thread bomb": ("import _thread, time\nwhile True: _thread.start_new_thread(time.sleep, (9,))", {FAILED}),
    "memory bomb at once": ("def f(x): return [0] * 10**10", {FAILED}),
    "memory bomb by and by": ("def f(x):\n    a = []\n    while True: a.append(bytearray(10**7))", {FAILED}),
    "memory bomb that catches errors": (
        "a = []\nwhile True:\n    try: a.append(bytearray(10**6))\n    except MemoryError: pass",
        {TIMED_OUT},
    ),
    "memory in files": (
        "def f(x):\n    for i in range(99):\n        with open(str(i), 'wb') as file: file.write(bytes(2**22))",
        {FAILED},
    ),
    "large sparse file": ("def f(x):\n    with open('a', 'wb') as file: file.truncate(2**40)", {FAILED}),
    "giant output": ("def f(x):\n    while True: print('x' * 10**6)", {TIMED_OUT}),
    "giant output on the channel": ("import os\ndef f(x):\n    while True: os.write(3, bytes(10**6))", {KILLED}),
    "giant value": ("def f(x): return 'x' * 10**5", {KILLED}),
    "deep recursion": ("def f(x): return f(x) + 1", {FAILED}),
    "deep recursion without a limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x) + 1",
        {FAILED, KILLED},
    ),
    "deep recursion in C": (
        "import sys\nsys.setrecursionlimit(10**9)\na = []\nfor _ in range(10**6): a = [a]\ndef f(x): return repr(a)",
        {FAILED, KILLED},
    ),
    "deep nesting": ("f = " + "(" * 5_000 + "1" + ")" * 5_000, {FAILED, KILLED}),
    "leaves": ("import os\ndef f(x): os._exit(0)", {FAILED}),
    "leaves with a status": ("import os\ndef f(x): os._exit(1)", {FAILED}),
    "aborts": ("import os\ndef f(x): os.abort()", {KILLED}),
    "kills itself": ("import os\ndef f(x): os.kill(os.getpid(), 9)", {KILLED}),
    "kills all it can": (
        "import os\nfor pid in range(1, 2**12):\n    try: os.kill(pid, 9)\n    except OSError: pass",
        {KILLED},
    ),
    "becomes another program": ("import os\ndef f(x): os.execv('/usr/bin/env', ['env'])", {FAILED}),
}


@pytest.fixture(scope="module")
def side_by_side(sandbox: Sandbox) -> dict[str, Verdict]:
    """Verdicts of all hostile programs, judged in one call with an honest one after each."""
    impatient = Sandbox(Limits(wall_seconds=4), workers=4)
    checks, names = [], []
    for name, (program, _) in HOSTILE.items():
        checks += [doubles(program), doubles(f"# beside: {name}\n{HONEST}")]
        names += [name, f"honest beside: {name}"]
    return dict(zip(names, impatient.judge(checks), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_ends_without_passing(side_by_side: dict[str, Verdict], name: str) -> None:
    assert side_by_side[name] in HOSTILE[name][1] | {TIMED_OUT}  # on a busy machine all may


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_does_not_change_the_verdict_of_another(side_by_side: dict[str, Verdict], name: str) -> None:
    assert side_by_side[f"honest beside: {name}"] == PASSED


# --- What a program can reach ---


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


def test_files_of_the_host_cannot_be_read(sandbox: Sandbox, host_file: Path) -> None:
    probe = f"return open({str(host_file)!r}).read()"
    assert outside(probe) == repr(SECRET)
    assert found(sandbox, probe, "denied")


@pytest.mark.parametrize(
    "path", [Path.home() / ".profile", Path(__file__), Path("/etc/passwd"), Path("/proc/self/status")]
)
def test_neither_home_nor_project_nor_etc_nor_proc_exists(sandbox: Sandbox, path: Path) -> None:
    probe = f"import os\nreturn os.path.exists({str(path)!r})"
    if path.exists():
        assert outside(probe) == "True"
    assert found(sandbox, probe, False)


def test_the_root_holds_system_interpreter_and_tmp_alone(sandbox: Sandbox) -> None:
    allowed = {"usr", "etc", "tmp", Path(sys.base_prefix).parts[1], *(path.name for path in Path("/").glob("lib*"))}
    probe = f"import os\nreturn sorted(set(os.listdir('/')) - {allowed!r})"
    assert outside(probe) != "[]"
    assert sandbox.judge([Check(f"{as_function(probe)}\ng = lambda x: str(f(x))", "g", (0,), ("[]",))]) == [PASSED]
    assert found(sandbox, "import os\nreturn str(os.listdir('/tmp')) + str(os.listdir('/etc'))", "[]['ld.so.cache']")


def test_there_are_no_devices(sandbox: Sandbox) -> None:
    probe = "return open('/dev/null').read()"
    assert outside(probe) == "''"
    assert found(sandbox, probe, "denied")


def test_the_environment_is_empty_but_for_the_hash_seed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", SECRET)
    probe = "import os\nreturn ' '.join(sorted(set(os.environ) - {'LC_CTYPE'}))"
    assert "API_TOKEN" in str(outside(probe))
    assert found(sandbox, probe, "PWD PYTHONHASHSEED")


def test_nothing_of_the_host_can_be_written(sandbox: Sandbox, host_file: Path) -> None:
    write = "open({!r}, 'w').write('mine')\nreturn 'written'".format
    beside = str(host_file.with_name("new.txt"))
    assert outside(write(beside)) == "'written'"
    Path(beside).unlink()
    for path in (beside, str(host_file), "/new", "/usr/new", f"{sys.base_prefix}/new", "/etc/ld.so.cache", "/lib/new"):
        assert found(sandbox, write(path), "denied")
    assert host_file.read_text() == SECRET
    assert not Path(beside).exists()


def test_tmp_is_private_and_forgotten(sandbox: Sandbox) -> None:
    leave = "open('/tmp/left', 'w').write('me')\nimport os\nreturn os.path.exists('/tmp/left')"
    assert found(sandbox, leave, True)
    assert found(sandbox, "import os\nreturn os.path.exists('/tmp/left')", False)
    assert not Path("/tmp/left").exists()


def test_programs_that_run_at_a_time_do_not_meet_in_tmp(sandbox: Sandbox) -> None:
    program = (
        "import os, time\ndef f(x):\n"
        "    open('/tmp/{0}', 'w').close()\n    time.sleep(0.5)\n    return sorted(os.listdir('/tmp'))"
    )
    pair = Sandbox(sandbox.limits, workers=2)
    checks = [Check(program.format(name), "f", (0,), ([name],)) for name in ("one", "two")]
    assert pair.judge(checks) == [PASSED, PASSED]


@pytest.fixture
def listener() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server, server.getsockname()[1]


@pytest.fixture
def unfiltered(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox whose filter of system calls lets everything through, to see that the rest holds by itself."""
    monkeypatch.setattr(sandbox, "_filter", ALLOW_ALL)
    return sandbox


@pytest.mark.parametrize("kind", ["sandbox", "unfiltered"])
def test_loopback_of_the_host_cannot_be_reached(
    request: pytest.FixtureRequest, kind: str, listener: tuple[socket.socket, int]
) -> None:
    sandbox: Sandbox = request.getfixturevalue(kind)
    server, port = listener
    probe = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nreturn 'connected'"
    assert outside(probe) == "'connected'"
    server.accept()[0].close()
    assert found(sandbox, probe, "denied")
    with pytest.raises(BlockingIOError):
        server.accept()


def test_there_is_no_interface_but_an_own_loopback(unfiltered: Sandbox) -> None:
    probe = "import socket\nreturn str([name for _, name in socket.if_nameindex()])"
    assert found(unfiltered, probe, "['lo']")
    route = "import socket\nsocket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))\nreturn 'routed'"
    assert found(unfiltered, route, "denied")


def test_no_socket_of_any_family_can_be_opened(sandbox: Sandbox) -> None:
    probe = "import socket\nsocket.socket({}).close()\nreturn 'opened'".format
    assert outside(probe("socket.AF_UNIX")) == "'opened'"
    for family in ("socket.AF_INET", "socket.AF_INET6", "socket.AF_UNIX", "socket.AF_NETLINK", "40", "38"):
        assert found(sandbox, probe(family), "denied")


@pytest.mark.parametrize(
    "act",
    [
        "os.fork() or os._exit(0)",
        "os.posix_spawn('/usr/bin/env', ['env'], {})",
        "__import__('subprocess').run(['/usr/bin/env'], capture_output=True)",
        "os.memfd_create('a')",
        "os.pidfd_open(os.getpid())",
        "libc('unshare', 0x20000)",
        "libc('ptrace', 0, 0, 0, 0)",
        "libc('shmget', 0, 4096, 0o1600)",
        "libc('process_vm_readv', os.getpid(), 0, 0, 0, 0, 0)",
    ],
)
def test_a_second_process_and_memory_without_limits_are_denied(sandbox: Sandbox, act: str) -> None:
    probe = f"""
import os
def libc(name, *arguments):
    import ctypes
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0: raise OSError(ctypes.get_errno(), name)
{act}
return 'done'"""
    if "unshare" not in act:
        assert outside(probe) == "'done'"
    assert found(sandbox, probe, "denied")


def test_limits_cannot_be_raised(sandbox: Sandbox) -> None:
    raised = "import resource\nresource.setrlimit(resource.RLIMIT_{0}, (2**40, 2**40))\nreturn 'raised'".format
    for name in ("CPU", "AS", "FSIZE", "NOFILE", "NPROC"):
        program = as_function(raised(name)).replace("except OSError", "except (OSError, ValueError)")
        assert sandbox.judge([Check(program, "f", (0,), ("denied",))]) == [PASSED]


def test_a_program_has_no_privileges(sandbox: Sandbox) -> None:
    probe = "import os\nos.setuid(0)\nreturn 'root'"
    assert found(sandbox, probe, "denied")
    assert found(
        sandbox, "import os\nreturn str((os.getuid(), os.getgid(), os.uname().nodename))", "(65534, 65534, 'sandbox')"
    )


@pytest.mark.parametrize("kind", ["sandbox", "unfiltered"])
def test_processes_of_the_host_cannot_be_signalled(request: pytest.FixtureRequest, kind: str) -> None:
    sandbox: Sandbox = request.getfixturevalue(kind)
    probe = "import os\nos.kill({}, 15)\nreturn 'sent'".format
    with subprocess.Popen(["sleep", "60"]) as victim:
        found(sandbox, probe(victim.pid), "denied")  # inside, that number may be the program's own
        assert victim.poll() is None
        assert outside(probe(victim.pid)) == "'sent'"
        assert victim.wait() == -signal.SIGTERM


def test_the_parent_and_all_others_survive_signals(sandbox: Sandbox) -> None:
    program = "import os\ndef f(x):\n    os.kill(os.getppid(), 9)\n    os.kill(os.getppid(), 19)\n    return 2 * x"
    everyone = "import os\ndef f(x):\n    try: os.kill(-1, 9)\n    except OSError: pass\n    return 2 * x"
    honest = [doubles(f"{HONEST}  # {i}") for i in range(3)]
    verdicts = sandbox.judge([doubles(program), honest[0], doubles(everyone), *honest[1:]])
    assert verdicts == [PASSED] * 5  # the signals reached nobody


def test_standard_input_is_at_its_end(sandbox: Sandbox) -> None:
    probe = "import sys\nreturn sys.stdin.readline()"
    assert outside(probe) == r"'a line\n'"
    assert found(sandbox, probe, "")
    assert found(sandbox, "try: return input()\nexcept EOFError: return 'at its end'", "at its end")


# --- Programs that would be judged better than they are ---

WRONG = "def f(x): return 0"
CHANNELS = "for fd in range(64):\n    try: os.write(fd, {!r})\n    except OSError: pass"


@pytest.mark.parametrize(
    "program",
    [
        "print('passed')\n" + WRONG,
        "import os\n" + CHANNELS.format(b"passed") + "\n" + WRONG,
        "import os\n" + CHANNELS.format(b"passed\n") + "\nos._exit(0)",
        "import os\n" + CHANNELS.format(b"ready\npassed") + "\nos._exit(0)",
        "import builtins\nbuiltins.repr = lambda value: 'passed'\n" + WRONG,
        "import builtins\nbuiltins.repr = lambda value: value\n" + WRONG,
        "import sys\nmain = sys.modules['__main__']\nmain.READY = main.Any = 'passed'\n" + WRONG,
        "import os\nos.fdopen = open\n" + WRONG,
        "import sys\nfor name in list(sys.modules): del sys.modules[name]\n" + WRONG,
        "class Same:\n    def __eq__(self, other): return True\ndef f(x): return Same()",
        "class Same(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return Same(0)",
        "class Wild:\n    def __repr__(self): raise SystemExit(0)\ndef f(x): return Wild()",
        "class Text:\n    def __repr__(self): return 'passed'\ndef f(x): return Text()",
        "import gc, sys\ndef f(x):\n    g = sys._getframe(1).f_locals\n    g['report'] = b'passed'\n    return 0",
        "import sys\ndef f(x):\n    return sys._getframe(1).f_locals.get('expected', 0)",
        "import atexit, os\natexit.register(lambda: os.write(3, b'passed'))\n" + WRONG,
    ],
)
def test_a_verdict_cannot_be_forged(sandbox: Sandbox, program: str) -> None:
    assert sandbox.judge([doubles(program)]) == [FAILED]


def test_what_is_expected_is_not_inside(sandbox: Sandbox) -> None:
    program = """
import os, sys
def f(x):
    frame, seen = sys._getframe(1), repr((sys.orig_argv, dict(os.environ)))
    while frame: frame, seen = frame.f_back, seen + repr((frame.f_locals, frame.f_globals))
    return ("a question" in seen, "-".join(["an", "answer"]) in seen)"""
    checks = [Check(program, "f", ("a question",), (expected,)) for expected in ("an-answer", (True, False))]
    assert sandbox.judge(checks) == [FAILED, PASSED]


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("def ｆ(x): return 2 * x", PASSED),  # Python reads a full-width f as f
        ("def f(х): return 2 * x", FAILED),  # a Cyrillic х
        ("def f(x): return 2 * x  # \u202e\u2066", PASSED),
        ("def f(x): return '\u202e'", FAILED),
        ("def f(x):\u00a0return 2 * x", FAILED),
        ("\ufeffdef f(x): return 2 * x", FAILED),
        ("# -*- coding: utf-7 -*-\n# +AAo-while True: pass\ndef f(x): return 2 * x", PASSED),
        ("def f(x): return 2 * x\0", FAILED),
        ("def f(x): return '\ud800'", REFUSED),
        ("\ud800", REFUSED),
        (HONEST + "\n" + "#" * 2**14, REFUSED),
    ],
)
def test_unicode_is_what_python_takes_it_for(sandbox: Sandbox, program: str, verdict: Verdict) -> None:
    assert sandbox.judge([doubles(program)]) == [verdict]


@settings(max_examples=20)
@given(text=st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_text_gets_a_verdict(sandbox: Sandbox, text: str) -> None:
    assert sandbox.judge([doubles(text), doubles(f"def f(x): return {text}")])[0] in {FAILED, REFUSED}


# --- Ends ---


def processes_with(marker: str) -> list[int]:
    """Processes whose command line has that word."""
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if marker in read(path)]


def read(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").split("\0")
    except OSError:  # it has ended meanwhile
        return []


def until(condition: Callable[[], bool], seconds: float = 300) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_no_process_is_left_behind(sandbox: Sandbox) -> None:
    marker = 2**20 + os.getpid()  # a size of /tmp no other sandbox has
    own = Sandbox(Limits(wall_seconds=0.7, file_bytes=marker), workers=1)
    # Without the filter the program can leave the session and have children.
    own._filter = (0x06).to_bytes(4, sys.byteorder) + (0x7FFF0000).to_bytes(4, sys.byteorder)
    program = (
        "import os, time\nos.setsid() if os.getpid() != os.getsid(0) else None\nos.fork(); os.fork()\ntime.sleep(3600)"
    )
    assert own.judge([doubles(program)])[0] in {TIMED_OUT, FAILED}  # root may fork, others may not
    assert processes_with(str(marker)) == []


def test_a_sandbox_ends_with_the_process_that_made_it(
    sandbox: Sandbox, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    marker = 2**21 + os.getpid()
    code = (
        "import sys\nfrom crossdomain.sandbox import *\n"
        "s = Sandbox(Limits(wall_seconds=600, file_bytes=int(sys.argv[1])), workers=1)\n"
        "s.judge([Check('import time\\ntime.sleep(600)', 'f', (1,), (1,))])"
    )
    parent = start_python(code, marker)
    try:
        assert until(lambda: len(processes_with(str(marker))) > 2)  # the parent, whose argument it is, and two of bwrap
    finally:
        parent.kill()
        parent.wait()
    assert until(lambda: processes_with(str(marker)) == [])


# --- Without bubblewrap nothing runs ---


def test_without_bubblewrap_it_refuses_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(SandboxError, match=r"bwrap\) is not installed.*apt-get install bubblewrap.*domains\.code="):
        Sandbox()


@pytest.mark.parametrize(
    "script", ["echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "exit 0", "exit 137"]
)
def test_where_bubblewrap_cannot_confine_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SandboxError, match=r"could not set up a sandbox \(.+\).*unprivileged user namespaces"):
        Sandbox()


def test_a_program_is_never_run_without_the_sandbox(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    monkeypatch.setattr(sandbox, "_command", ["false"])
    with pytest.raises(SandboxError):
        sandbox.judge([doubles(f"open({str(marker)!r}, 'w')\n{HONEST}")])
    assert not marker.exists()


def test_a_machine_whose_system_calls_are_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/bwrap")
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match=r"'riscv64'.*x86_64.*domains\.code=expression_values"):
        Sandbox()


def test_an_interpreter_whose_directory_holds_the_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/bwrap")
    monkeypatch.setattr(module.sys, "base_prefix", str(Path.home().parent))
    with pytest.raises(SandboxError, match="holds the home directory"):
        Sandbox()
