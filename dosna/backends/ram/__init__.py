"""Chunks in this process's memory: for experiments, tests and scratch data.

Connections of one name share their datasets for as long as the process lives.
"""

from dosna.backends.ram.connection import BACKEND, RamConnection
from dosna.backends.ram.dataset import RamDataset

__all__ = ["BACKEND", "RamConnection", "RamDataset"]
