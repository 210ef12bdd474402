"""Studies that run elsewhere: in Slurm jobs, or in another process."""
