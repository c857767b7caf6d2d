//! A Linux kernel as data: vmlinuz, vmlinux, modules, objects and the running kernel.
