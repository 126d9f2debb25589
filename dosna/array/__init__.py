"""The objects that users hold: connections, datasets, chunks."""
