"""Mutation testing of ``domain/`` and ``engine/``: ``make mutate``; docs/reliability.md has the figures."""
