"""What a recommendation is grounded in: entries of the data set, how relevant they are, what they add."""
