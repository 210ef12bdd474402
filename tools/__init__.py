"""Programs that package, check and document the project; no part of the installed package."""
