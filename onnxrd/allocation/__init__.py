"""How many bits each weight gets: one slope for the whole model, and the search for a target."""
