"""The three fitted worlds behind one contract."""
