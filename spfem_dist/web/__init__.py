"""A page on which a film's emotion is edited: drop it, look, edit, take the result. Bound to this machine; what was dropped is deleted."""
