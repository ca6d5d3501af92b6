"""Tests of gpool/otp, one file for each of its modules."""
