"""Fixed points, recursions and their derivatives: each algorithm once, for every distance that needs it."""
