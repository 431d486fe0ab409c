"""Checks of the machine, of slides and of bundles before they are trusted."""
