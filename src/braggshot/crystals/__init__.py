"""Synthetic crystals: shapes, displacement fields, and what a detector makes of them."""
