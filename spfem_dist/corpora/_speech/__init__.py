"""What the rendered corpora share: what is said, when, and how it sounds."""
