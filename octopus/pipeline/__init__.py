"""What happens to one record, or one batch, inside a group's handlers."""

from octopus.pipeline.pipeline import Pipeline, RetryPipeline, subscription

__all__ = ["Pipeline", "RetryPipeline", "subscription"]
