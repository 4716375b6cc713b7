"""The Debian package on booted machines: containers with their own systemd, network and users. Needs root."""
