"""Every tolerance used in the tests has a name, a value and a reason; none is tuned to pass."""

# Algebraic identities: row sums of K are zero, basis functions sum to one, volumes add up.
# A few thousand roundings of float64 (2e-16) or float32 (6e-8).
EXACT64 = 1e-12
EXACT32 = 1e-5

# An iterative solution against a direct one: the residual bound times a modest condition number.
SOLVER = 10.0

# Slope of error against mesh width or time step: within 0.1 of theory, over >= 3 refinements
# (P1 elements: 2 in L2, 1 in H1; operator splitting: 1 or 2).
ORDER = 0.1

# Automatic derivative against central differences in float64: the optimal step cbrt(eps) leaves
# an error of about eps^(2/3) = 4e-11; 1e-5 allows for the curvature of an action potential.
GRAD = 1e-5

# <J u, w> = <u, J^T w> holds to rounding, whatever the function: float64 and a long sum.
ADJOINT = 1e-10

# APD90, V_rest, dV/dt_max against the paper or another simulator: 1 % or 1 ms, the spread between
# published implementations of one model.
BIOMARKER = 0.01
BIOMARKER_MS = 1.0

# The same run on CPU and GPU: summation order differs. float64 relative; float32: activation
# times within one time step (to be multiplied by dt).
DEVICE = 1e-9
DEVICE_STEPS = 1.0

# An exit by pace mapping on elements of 6 mm, beats from another mesh with other velocities: one
# and a half edges. Sites are nodes, and the two meshes' boundaries differ by half an edge.
PACE_MAP_ERROR_MM = 9.0

# One heart over several devices [ms]: the same sums in the same order, rounded as another program
# in float32 rounds (2e-5 ms seen after 25 ms); a tenth of a time step would be an error.
ROUNDING_LAT = 1e-3
