"""The public face of a study: define, run, resume, submit, ask and tell."""
