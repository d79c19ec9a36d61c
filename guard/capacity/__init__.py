"""The load test behind `sft-guard baseline capacity`: where it may be aimed, how it sends, what it drew."""
