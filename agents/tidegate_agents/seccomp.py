"""What a process that shares a mapped file may not ask the kernel for."""

from __future__ import annotations

import ctypes
import platform
import struct

# linux/seccomp.h, linux/audit.h, linux/filter.h, asm/unistd.h, linux/mman.h
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_ALLOW, _EPERM, _KILL_PROCESS = 0x7FFF0000, 0x00050001, 0x80000000
_LOAD, _IS_EQUAL, _IS_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _THIRD_ARGUMENT_AT = 0, 4, 32  # struct seccomp_data, little-endian
_MACHINES = {"x86_64": (0xC000003E, 317, 28), "aarch64": (0xC00000B7, 277, 233)}
"""By machine: its AUDIT_ARCH, and its numbers of seccomp and madvise."""
_IO_URING_SETUP, _PROCESS_MADVISE = 425, 440  # on every architecture
_X32 = 0x40000000  # the same calls again, under other numbers
_MADV_REMOVE = 9


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid_holes() -> None:
    """Refuse this process, all its threads and their children for good to punch a hole into a file that is mapped.

    A mapping by itself can do so (madvise(2), MADV_REMOVE). Whoever shares the file gets a new page in the hole's
    place, but dies of SIGBUS where the file system has none left. The process must have no new privileges
    (`process.drop_privileges`). OSError when the kernel refuses; nothing happens on machines that are not known here.
    """
    if platform.machine() not in _MACHINES:
        return
    architecture, seccomp, madvise = _MACHINES[platform.machine()]
    program = b"".join(
        struct.pack("<HBBI", code, yes, no, value)  # yes, no: how many instructions to leave out
        for code, yes, no, value in (
            (_LOAD, 0, 0, _ARCHITECTURE_AT),
            (_IS_EQUAL, 1, 0, architecture),
            (_RETURN, 0, 0, _KILL_PROCESS),
            (_LOAD, 0, 0, _NUMBER_AT),
            (_IS_AT_LEAST, 6, 0, _X32),
            (_IS_EQUAL, 5, 0, _IO_URING_SETUP),
            (_IS_EQUAL, 4, 0, _PROCESS_MADVISE),
            (_IS_EQUAL, 0, 2, madvise),
            (_LOAD, 0, 0, _THIRD_ARGUMENT_AT),
            (_IS_EQUAL, 1, 0, _MADV_REMOVE),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _EPERM),
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    filter_ = _Program(len(program) // 8, program)
    if libc.syscall(seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(filter_)):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")
