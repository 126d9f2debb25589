"""Confinement of a process that runs code of users, by the Linux kernel and without root.

`confine` takes from the calling process what a selection does not need: files other than its own
(Landlock), new processes, sockets, signals to others and further system calls (seccomp), its
capabilities, and resources without bounds (rlimits). None of it can be undone.
"""

from dosna.delivery.transform.sandbox.confining import Bounds, confine, lacking

__all__ = ["Bounds", "confine", "lacking"]
