"""The agent, which runs inside a pilot, runs units, and ends all processes that they start.

It uses only Python's standard library. The manager sends these files to the pilot's folder as an
archive that Python runs, so that a node needs Python 3.9 but not dosna. Only units with data units
need more: `dosna.pilot.data`, which the agent's Python must be able to import.
"""
