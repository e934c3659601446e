"""Transforms that bring text into one form."""
