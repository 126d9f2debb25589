"""The inventory: a database with a row for each file, from which workers take their work.

A worker *claims* a row under a token of its own, for as long as a lease lasts, and renews the
lease while it works. Every later change requires the token, so that a worker that has lost its
lease changes nothing. All times are those of the database's clock.
"""

from dosna.registry import needing

with needing("the inventory of the loader needs", "loader"):
    from dosna.loader.inventory.inventory import Inventory
    from dosna.loader.inventory.rows import Claim, Counts, Row
    from dosna.loader.inventory.tables import Phase

__all__ = ["Claim", "Counts", "Inventory", "Phase", "Row"]
