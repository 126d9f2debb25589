"""What compiles or prepares something once, on the machine where it is used."""
