"""Trials that are programs which know nothing of daskhpo."""
