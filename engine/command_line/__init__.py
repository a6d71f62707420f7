"""What was typed becomes a checked configuration, or one message that says what to type."""
