"""The nouns: frozen values that cannot be built wrong. numpy and the standard library only."""
