"""Array types used in signatures; the dimension names are listed in CONTRIBUTING.md."""

import jax
import numpy as np
from jaxtyping import Float, Int

Array = jax.Array | np.ndarray

Points = Float[np.ndarray, "node 3"]
Tets = Int[np.ndarray, "tet 4"]
Triangles = Int[np.ndarray, "triangle 3"]
NodeField = Float[Array, "node"]
