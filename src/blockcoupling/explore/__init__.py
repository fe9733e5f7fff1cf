"""The explorer: one page over catalogs, served on this machine or exported as one file.

Every view of the page is made from payloads, which pure functions read from a catalog
(`payloads.py` lists them). A server answers with them (`server.py`); an exported file contains them
(`export.py`). The code of the page (`page/`) is the same in both.
"""
