"""Lesions, what they burn and cut off, strategies side by side, and the search for few lesions."""
