"""Studies in virtual time: simulations, forecasts and scheduler comparisons."""

from daskhpo.simulation.simulation import Simulation
from daskhpo.virtual.executor import ClusterModel, Curve

__all__ = ["ClusterModel", "Curve", "Simulation"]
