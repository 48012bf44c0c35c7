"""From requests' words to tokens, and from tokens to words: vocabulary, chat templates, grammars, stop strings."""
