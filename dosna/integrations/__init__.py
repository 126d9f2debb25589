"""Other libraries that read datasets of dosna."""
