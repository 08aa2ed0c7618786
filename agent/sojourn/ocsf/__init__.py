"""Events of OCSF, the Open Cybersecurity Schema Framework, made of records and of reports. Pure."""
