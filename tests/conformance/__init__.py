"""The requirements of the RFCs and the tests that prove them.

``requirements/*.csv`` holds the sentences with a key word of RFC 2119, one row each: id, level, section,
title and text, for most also the role that has to meet it and the area of the product. An id is RFC, section
and number: ``6940-6.1-1``. A test that proves one cites it in its docstring or in a comment, in square
brackets; ``python -m tests.conformance.report`` reads the citations.
"""
