"""The commands. Each module adds the parsers of its commands by ``add``, and runs them."""

from dosna.cli.commands import (
    delivery,
    exporting,
    ingesting,
    loader,
    looking,
    piloting,
    querying,
    removing,
    scaling,
    serving,
    verifying,
    viewing,
)

__all__ = ["COMMANDS"]

COMMANDS = (
    *(looking, viewing, serving, ingesting, querying, scaling, delivery, piloting),
    *(exporting, verifying, removing, loader),
)
"""The modules of the commands, in the order of the help."""
