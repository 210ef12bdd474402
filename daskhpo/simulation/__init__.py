"""Studies in virtual time: simulation, forecasts, and comparisons on recorded curves."""

from daskhpo.simulation.executor import Curve, Site
from daskhpo.simulation.simulation import Simulation

__all__ = ["Curve", "Simulation", "Site"]
