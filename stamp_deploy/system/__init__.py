"""What the operating system gives and must be told: processes, files, memory, messages, the processor."""
