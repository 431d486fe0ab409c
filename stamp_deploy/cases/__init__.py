"""Many results side by side: tables, a clustered heat map and a page, slides of a case together."""

from .write import SUMMARY_FOLDER, Written, write_summary

__all__ = ["SUMMARY_FOLDER", "Written", "write_summary"]
