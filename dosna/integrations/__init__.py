"""Integrations with other libraries, which read datasets of dosna."""
