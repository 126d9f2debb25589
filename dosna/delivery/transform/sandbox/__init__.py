"""Confinement of a process that runs code of users, by the Linux kernel and without root.

`confine` takes away from the calling process what a selection does not need: other files than its
own (Landlock), new processes, sockets, signals to others and further system calls (seccomp), its
capabilities, and unlimited resources (rlimits). None of this can be undone.
"""

from dosna.delivery.transform.sandbox.confining import Bounds, confine, lacking

__all__ = ["Bounds", "confine", "lacking"]
