"""Bytes by place: files, S3, locks, requests under way, caches."""
