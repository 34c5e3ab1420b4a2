"""Self-contained HTML pages about what the machine made."""
