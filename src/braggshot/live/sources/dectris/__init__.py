"""Receive the stream of a DECTRIS detector (SIMPLON).

series    make headers, images and ends of a series, in both versions of the stream
stream2   read version 2 of the stream: one CBOR map a message
source    read version 1 of the stream; tell the versions apart
"""
