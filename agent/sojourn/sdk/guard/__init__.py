"""Guards of services, whatever their framework."""
