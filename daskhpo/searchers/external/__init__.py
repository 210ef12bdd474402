"""Other people's optimisers, one file a library, behind one adaptor (``asktell.py``)."""
