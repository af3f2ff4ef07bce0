"""What runs inside the compared servers, one module each, under the interpreters of their own environments."""
