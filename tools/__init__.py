"""Programs that package, check and document the project; they are not installed."""
