"""Content-addressed files: the store on disk, the Blossom server application over it, and the Blossom client."""
