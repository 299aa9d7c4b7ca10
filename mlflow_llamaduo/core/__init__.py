"""Values and rules of the loop: no I/O and no framework in here."""
