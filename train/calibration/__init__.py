"""How far scores can be believed: presence, thresholds, reliability."""
