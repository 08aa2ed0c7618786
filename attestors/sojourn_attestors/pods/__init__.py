"""The kubelet, asked about pods."""
