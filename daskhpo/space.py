"""Search spaces, as users import them."""

from daskhpo.core.space import Categorical, Domain, Integer, Ordinal, Real, Space

__all__ = ["Categorical", "Domain", "Integer", "Ordinal", "Real", "Space"]
