"""Files that must survive: SQLite stores opened with care, files written whole, who may be trusted, who still lives."""
