"""How accurately the steps of policy iteration are taken: shared by the loop in Python and the compiled one.

Halving or doubling any of these numbers changes the time by less than a tenth, as measured on MUTAG, on sparse chains
of 64 and 256 states, and on dense ones of 64.
"""

# Local problems are solved to this share of what the certificate still allows, or of the last residual.
LOCAL_SHARE = 0.1
LOCAL_FORCING = 1e-2
# Linear systems are solved to the first share of the residual, but not beyond the second share of the wanted one.
FORCING = 0.05
FINAL_SHARE = 0.25
# The step past the tolerance, for gradients, is this much more accurate.
POLISH = 1e-3
# After so many sweeps in which the radius did not fall by a tenth, an item ends: rounding is taken to be the reason.
PATIENCE = 6
PROGRESS = 0.9
# The first C, the cost to go of the independent coupling, is solved to this share of the range of the cost.
START_SHARE, START_STEPS = 1e-2, 20
LINEAR_STEPS = 1000

# BiCGStab divides by products of its shadow with other vectors. In small or special systems these can become orthogonal
# long before the solution is found; below this cosine a product is mostly rounding, and a step along it can throw the
# solution anywhere. The recurrence then starts anew, with the residual for its shadow.
BREAKDOWN = 1e-10
