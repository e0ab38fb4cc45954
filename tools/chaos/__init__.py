"""The chaos script: real peers, real faults, one right answer; see README.md beside this file."""
