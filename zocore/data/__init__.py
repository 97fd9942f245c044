"""From files to examples: tables, columns, label words, templates."""
