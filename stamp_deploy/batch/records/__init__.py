"""What a batch keeps on disk: claims, the ledger, the audit log, metrics and the report."""
