"""The APIs that carry runs. Nothing else in the operator knows openai."""
