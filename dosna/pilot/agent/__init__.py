"""The agent: what runs inside a pilot, takes units, and ends all that they start.

It is of Python's standard library alone. The manager sends these files to the pilot's folder as
an archive that Python runs, so a node needs Python 3.9 and nothing of dosna. Only a unit with
data units needs more: `dosna.pilot.data`, by the agent's Python.
"""
