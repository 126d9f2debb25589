"""Requests to S3 servers, and the meaning of their failures."""
