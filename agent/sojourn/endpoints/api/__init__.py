"""The APIs for workloads and services, metrics, and what outside parties fetch."""
