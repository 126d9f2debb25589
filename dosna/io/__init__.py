"""Input and output of bytes: files, S3, locks, requests under way, and caches."""
