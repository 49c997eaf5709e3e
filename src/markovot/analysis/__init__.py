"""What is done with distances: kernels, classification, tests between groups, explanations, partners for states."""
