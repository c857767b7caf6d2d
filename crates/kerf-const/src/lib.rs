//! Constants compiled into a kernel: found, proved and made settable.
