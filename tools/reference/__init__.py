"""The pages of docs/reference/ that are made of the code: `make reference`.

A page is written by hand but for its blocks. A block stands between two comments, and what is between them is made of
the configuration's classes, click's commands, the tree of errors, or the table of metrics:

    <!-- make reference: config coverage -->
    ...
    <!-- end -->

A page that lacks a block, or has one that nobody makes, is an error, so nothing that is new in the code is left out.
"""
