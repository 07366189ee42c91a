"""Loading one data file into one table: reading, types, checks, masking and targets, without a server or Prefect.

Needs the extra ``flows`` (pyarrow and the drivers of the databases).
"""
