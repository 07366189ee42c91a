"""Inspects what stands under the keys of Sluice and sets aside what cannot be read."""
