"""Chapter 7 of Sutton & Barto (2018)."""

from book.figure import Figure

FIGURES: dict[str, Figure] = {}
