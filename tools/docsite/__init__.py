"""How the documentation's site is made: `make docs`."""
