"""Trains RAT+ models that ratplus-run loads."""
