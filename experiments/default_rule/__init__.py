"""The default rule beside other methods, on recorded learning curves."""
