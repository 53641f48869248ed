"""Bias: what was shown, what is popular, who is served: measured, and taken out where that helps."""
