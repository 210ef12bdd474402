"""The virtual clock of simulations, and recorded curves under other schedulers."""
