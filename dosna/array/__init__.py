"""What a user holds: connections, datasets, chunks."""
