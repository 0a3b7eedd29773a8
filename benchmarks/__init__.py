"""Programs that measure ppcore; each prints what it ran on and with which settings."""
