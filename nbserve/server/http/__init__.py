"""An HTTP/1.1 server on httptools: bytes to exchanges, answers to bytes. It knows no endpoints. Server process."""
