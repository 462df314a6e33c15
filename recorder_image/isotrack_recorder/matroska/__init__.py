"""Matroska and WebM (RFC 9559, RFC 8794): written as an append-only stream whose head comes last, read for inspection.

`ebml` holds the primitives, `codec_private` what decoders must be told beforehand, `muxer` makes a file's bytes, `reader`
walks a file made by anybody. All pure: bytes in, bytes out.
"""
