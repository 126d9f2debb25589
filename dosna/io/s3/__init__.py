"""Requests to S3 servers, and what their failures mean."""
