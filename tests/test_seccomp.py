"""The filter of system calls, run by a small interpreter of BPF; what it does to real programs is in `test_sandbox.py`."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdomain.seccomp import ALLOW, ARCHITECTURES, DENIED, FAIL, KILL, X32, denying_filter

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def outcome(program: bytes, architecture: int, number: int) -> int:
    """What the kernel would do with a call, by the definition of classic BPF."""
    data = struct.pack("=II", number, architecture)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = position = 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                accumulator = struct.unpack_from("=I", data, operand)[0]
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                position += if_true if accumulator == operand else if_false
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                position += if_true if accumulator >= operand else if_false
            case 0x06:  # BPF_RET | BPF_K
                return operand
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize("machine", DENIED)
@given(number=st.integers(0, X32 - 1) | st.integers(0, 500))
def test_exactly_the_listed_calls_fail(machine: str, number: int) -> None:
    expected = FAIL if number in DENIED[machine].values() else ALLOW
    assert outcome(denying_filter(machine), ARCHITECTURES[machine], number) == expected


@pytest.mark.parametrize("machine", DENIED)
def test_every_listed_call_fails(machine: str) -> None:
    program = denying_filter(machine)
    found = {name: outcome(program, ARCHITECTURES[machine], number) for name, number in DENIED[machine].items()}
    assert found == dict.fromkeys(DENIED[machine], FAIL)


@given(number=st.integers(X32, 2**32 - 1))
def test_no_call_gets_through_by_its_number_for_x32(number: int) -> None:
    assert outcome(denying_filter("x86_64"), ARCHITECTURES["x86_64"], number) == FAIL


@given(number=st.integers(0, 500), architecture=st.integers(0, 2**32 - 1))
def test_code_of_another_architecture_is_killed(number: int, architecture: int) -> None:
    if architecture not in ARCHITECTURES.values():
        assert outcome(denying_filter("x86_64"), architecture, number) == KILL
    assert outcome(denying_filter("x86_64"), ARCHITECTURES["aarch64"], number) == KILL


@pytest.mark.parametrize("machine", DENIED)
def test_call_numbers_are_those_of_the_kernel(machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip(f"the kernel's headers are not installed ({HEADERS[machine]})")
    numbers = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", HEADERS[machine].read_text()))
    assert {name: int(numbers[name]) for name in DENIED[machine]} == DENIED[machine]


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="no table of system calls for 'riscv64': expected one of x86_64, aarch64"):
        denying_filter("riscv64")
