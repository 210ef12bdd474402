"""Search spaces: the names that users import."""

from daskhpo.core.space import Categorical, Domain, Integer, Ordinal, Real, Space

__all__ = ["Categorical", "Domain", "Integer", "Ordinal", "Real", "Space"]
