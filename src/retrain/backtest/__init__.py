"""Replays of the snapshot's own history."""
