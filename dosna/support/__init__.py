"""Tools that compile or prepare something once, on the machine where it is used."""
