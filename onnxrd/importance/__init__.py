"""How much an error in each weight costs: estimate it, keep it, load it."""
