"""Studies that run elsewhere: submitted to Slurm, or in another process."""
