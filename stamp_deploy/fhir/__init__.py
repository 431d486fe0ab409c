"""A result as HL7 FHIR: a preliminary DiagnosticReport with its Observations, for a hospital's integration engine."""

from .write import write_fhir

__all__ = ["write_fhir"]
