"""Search spaces: the names that users import."""

from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.space import Space

__all__ = ["Categorical", "Domain", "Integer", "Ordinal", "Real", "Space"]
