"""Local transport problems: engines that solve a whole sweep of them, and single problems with a cost of their own."""
