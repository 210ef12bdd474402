"""The public interface of a study: define, run, resume, submit, ask and tell."""
