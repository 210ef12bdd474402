"""Recommendation of a scheduler and a searcher for a study, with reasons."""

from daskhpo.recommendation.answer import Recommendation, recommend

__all__ = ["Recommendation", "recommend"]
