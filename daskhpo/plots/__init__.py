"""Plots of a study: its columns, the data of each plot, figures, the report."""
