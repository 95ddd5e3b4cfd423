"""The system calls a sandboxed program may not make, as a seccomp filter (a program for the kernel's classic BPF).

Namespaces take away what a program could name: files, addresses, processes. The filter takes away calls by which it could
still exceed its limits, since those count per process, or reach the host: it may start no second process or thread, open no
socket (those of some families, such as vsock, know no namespace), and hold no memory that its limits do not count. Such a
call fails with EPERM, so that Python raises OSError.

Source: seccomp(2), and `linux/seccomp.h`, `linux/filter.h` and `linux/audit.h` of the kernel.
"""

from __future__ import annotations

import errno
import struct

# Call numbers by machine, as in the kernel's tables; fork and vfork exist on x86-64 alone.
DENIED = {
    "x86_64": {
        **{"clone": 56, "fork": 57, "vfork": 58, "clone3": 435, "execveat": 322},
        **{"unshare": 272, "setns": 308, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311},
        **{"socket": 41, "socketpair": 53, "pidfd_open": 434, "pidfd_getfd": 438},
        **{"memfd_create": 319, "memfd_secret": 447, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240},
        **{"add_key": 248, "request_key": 249, "keyctl": 250},
        **{"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425},
    },
    "aarch64": {
        **{"clone": 220, "clone3": 435, "execveat": 281},
        **{"unshare": 97, "setns": 268, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271},
        **{"socket": 198, "socketpair": 199, "pidfd_open": 434, "pidfd_getfd": 438},
        **{"memfd_create": 279, "memfd_secret": 447, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180},
        **{"add_key": 217, "request_key": 218, "keyctl": 219},
        **{"bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425},
    },
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
X32 = 0x40000000  # on x86-64, numbers from here on are the same calls by other numbers

LOAD, JUMP_IF_EQUAL, JUMP_IF_GREATER_OR_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_OFFSET, ARCHITECTURE_OFFSET = 0, 4  # in struct seccomp_data
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


def denying_filter(machine: str) -> bytes:
    """The filter as `bwrap --seccomp` reads it: an array of `struct sock_filter`, 8 bytes an instruction.

    Args:
        machine: as `platform.machine()` names it.

    Raises:
        ValueError: the call numbers of that machine are not known here.
    """
    if machine not in DENIED:
        raise ValueError(f"no table of system calls for {machine!r}: expected one of {', '.join(DENIED)}")
    numbers = sorted(DENIED[machine].values())
    instructions = [
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_IF_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL),  # 32-bit code has call numbers of its own
        (LOAD, 0, 0, NUMBER_OFFSET),
        (JUMP_IF_GREATER_OR_EQUAL, len(numbers) + 1, 0, X32),
        *((JUMP_IF_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
