"""Work over all chunks: what each process does with its share of the tasks."""
