"""A fitted model held to account: selection, popularity and fairness, before and after each correction."""
