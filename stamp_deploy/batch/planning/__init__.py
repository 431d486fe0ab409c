"""Which slides a batch scores, and what is known of each before it starts."""
