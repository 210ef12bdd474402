"""Studies in virtual time: simulations, forecasts and scheduler comparisons."""

from daskhpo.simulation.executor import ClusterModel, Curve
from daskhpo.simulation.simulation import Simulation

__all__ = ["ClusterModel", "Curve", "Simulation"]
