"""How `validate` tells its diagnostics: `text` for people and editors, `github` and `sarif` for code review."""
