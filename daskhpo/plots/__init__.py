"""What is seen of a study: columns, the data of each plot, figures, the report."""
