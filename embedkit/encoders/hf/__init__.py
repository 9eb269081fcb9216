"""What a Hugging Face folder says, in embedkit's words: weights, pixels, texts, sentence files, towers."""
