"""One fit: the verbs of users, and the rooms behind them, which are handed networks, optimizers and programs."""
