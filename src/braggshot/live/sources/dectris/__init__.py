"""Receive the stream of a DECTRIS detector (SIMPLON).

series    headers, images and ends of a series, in both versions
stream2   version 2: one CBOR map a message
source    the socket, and version 1 of the stream
"""
