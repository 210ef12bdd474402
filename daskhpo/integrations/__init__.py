"""Callbacks for training frameworks; each file translates one of them.

None of them is imported here: each needs its framework, which ``pip install daskhpo[NAME]`` brings.
"""
