"""Results for people and programs: tables and JSON."""
