"""Studies in virtual time: simulation, forecasts, and comparisons on recorded curves."""

from daskhpo.simulation.executor import ClusterModel, Curve
from daskhpo.simulation.simulation import Simulation

__all__ = ["ClusterModel", "Curve", "Simulation"]
