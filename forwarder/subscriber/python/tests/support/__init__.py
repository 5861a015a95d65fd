"""What tests of several files need."""
