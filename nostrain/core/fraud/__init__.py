"""What may become evidence, and disputes: what we can prove is published, what others claim is checked."""
