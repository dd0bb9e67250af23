"""Decisions: selection, reward, gate, arms, rehearsal. No database access, and only the calls that are passed in."""
