"""Where stages run: one module for each kind of place, none importing another."""
