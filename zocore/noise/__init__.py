"""Random numbers with an address: the same on every device, in any order, in any tile."""
