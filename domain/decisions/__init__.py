"""Decisions about actions and escalations."""
