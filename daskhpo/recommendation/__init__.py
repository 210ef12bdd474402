"""Which scheduler and which searcher to take for a study, and why."""

from daskhpo.recommendation.answer import Recommendation, recommend

__all__ = ["Recommendation", "recommend"]
