"""Why an item was recommended: what moved its score, chosen, put into words, and checked."""
