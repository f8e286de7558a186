"""Read the scans that BLISS publishes in a Redis server.

documents  read what the server keeps about a scan
source     follow the scans, and read their frames
"""
