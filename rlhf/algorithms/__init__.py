"""The mathematics of learning from preferences: pure torch, nothing read or written, no argument changed.

Shapes, as suffixes: B responses, T response tokens, V vocabulary. A mask is True where a token counts.
"""
