"""From files to typed tables: where files lie, how text is written, and what it means by the
schema."""
