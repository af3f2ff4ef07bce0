"""What runs inside the compared servers, one module each; run by their own interpreters with the repository on the path."""
