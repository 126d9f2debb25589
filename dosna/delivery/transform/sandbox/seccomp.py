"""seccomp: the system calls that a process may make from now on.

Calls are allowed unless they are listed here: those that affect more than the process and its
files (Landlock decides on opening files), and those that take resources which no limit of a
process counts. A refused call fails with EPERM, or with ENOSYS if libraries can then do without
it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from dosna.delivery.transform.sandbox.kernel import prctl

__all__ = ["refuse_calls", "supported"]

_SET_SECCOMP, _FILTER = 22, 2
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _HAS, _RETURN, _AT_LEAST, _MASK = 0x20, 0x15, 0x45, 0x06, 0x35, 0x54
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Numbers on x86_64 and aarch64; None if a machine has no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # the network; socketpair is allowed, because event loops need it
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242),
    # the limits of this process
    "setrlimit": (160, 164), "capset": (126, 91), "personality": (135, 92),
    # attributes of files, which Landlock does not guard
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "truncate": (76, 45),
    "file_setattr": (469, 469), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # memory and space that no limit counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "fallocate": (285, 47),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semctl": (66, 191), "semop": (65, 193), "semtimedop": (220, 192), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    # the machine
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "acct": (163, 89), "iopl": (172, None), "ioperm": (173, None), "syslog": (103, 116),
    "modify_ldt": (154, None), "sync": (162, 81), "syncfs": (306, 267), "vhangup": (153, 58),
}  # fmt: skip
_ABSENT: dict[str, tuple[int | None, int | None]] = {
    "clone3": (435, 435), "openat2": (437, 437), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
}  # fmt: skip

_CLONE, _KILL_CALL, _TGKILL = (56, 220), (62, 129), (234, 131)
_SOCKETPAIR, _PRLIMIT, _PRCTL = (53, 199), (302, 261), (157, 167)
_FCNTL, _IOCTL, _MMAP = (72, 25), (16, 29), (9, 222)

_CLONE_THREAD = 0x10000
_UNIX = 1
_SHARED_ANONYMOUS = 0x21
# Signals at the death of the parent, dumps, the memory map, tracers.
_OPTIONS_OF_PRCTL = (1, 4, 35, 0x59616D61)
# F_SETOWN, F_SETSIG and F_SETOWN_EX, by which the kernel sends signals to other processes.
_OWNERS_OF_FILES = (8, 10, 15)
# FIOSETOWN, SIOCSPGRP and TIOCSTI.
_OWNERS_BY_IOCTL = (0x8901, 0x8902, 0x5412)


def supported() -> bool:
    """Return whether the numbers of this machine's system calls are known."""
    return os.uname().sysname == "Linux" and platform.machine() in _ARCHITECTURES


def refuse_calls() -> None:
    """Deny this process the system calls that a selection does not need.

    Raises
    ------
    OSError
        The kernel has no seccomp, or the process may gain privileges.
    """
    program = b"".join(_program(os.getpid()))
    count = len(program) // 8
    code = ctypes.create_string_buffer(program, len(program))
    held = struct.pack("HxxxxxxP", count, ctypes.addressof(code))
    prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.c_char_p(held))


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value)


def _fail(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


_PASS = _step(_RETURN, _ALLOW)
_NO = _fail(errno.EPERM)


def _argument(index: int, high: bool = False) -> bytes:
    return _step(_LOAD, _ARGUMENTS_AT + 8 * index + 4 * high)


def _unless_equal(index: int, value: int) -> list[bytes]:
    return [_argument(index), _step(_EQUAL, value, 0, 1), _PASS, _NO]


def _none_of(index: int, values: tuple[int, ...]) -> list[bytes]:
    tests = [part for value in values for part in (_step(_EQUAL, value, 0, 1), _NO)]
    return [_argument(index), *tests, _PASS]


def _program(process: int) -> list[bytes]:
    """Return the instructions of a filter for a process."""
    architecture, column = _ARCHITECTURES[platform.machine()]
    steps = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_AT_LEAST, _X32, 0, 1),
        _fail(errno.ENOSYS),
    ]
    blocks: list[tuple[tuple[int | None, int | None], list[bytes]]] = [
        (_CLONE, [_argument(0), _step(_HAS, _CLONE_THREAD, 0, 1), _PASS, _NO]),
        (_KILL_CALL, _unless_equal(0, process)),
        (_TGKILL, _unless_equal(0, process)),
        (_SOCKETPAIR, _unless_equal(0, _UNIX)),
        # A call that only queries limits passes no new ones.
        (_PRLIMIT, [
            _argument(2), _step(_EQUAL, 0, 0, 3), _argument(2, True), _step(_EQUAL, 0, 0, 1),
            _PASS, _NO,
        ]),
        (_PRCTL, _none_of(0, _OPTIONS_OF_PRCTL)),
        (_FCNTL, _none_of(1, _OWNERS_OF_FILES)),
        (_IOCTL, _none_of(1, _OWNERS_BY_IOCTL)),
        (_MMAP, [
            _argument(3), _step(_MASK, _SHARED_ANONYMOUS), _step(_EQUAL, _SHARED_ANONYMOUS, 0, 1),
            _fail(errno.ENOMEM), _PASS,
        ]),
    ]  # fmt: skip
    blocks += [(numbers, [_NO]) for numbers in _REFUSED.values()]
    blocks += [(numbers, [_fail(errno.ENOSYS)]) for numbers in _ABSENT.values()]
    for numbers, block in blocks:
        if (number := numbers[column]) is not None:
            steps += [_step(_EQUAL, number, 0, len(block)), *block]
    return [*steps, _PASS]
