"""Measuring the method: metrics, the methods it is compared with, protocols, and reports."""
