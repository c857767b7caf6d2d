# A fixed piece of work for `cargo xtask bench measure`: system calls, a shell, programs that come and go, and plain arithmetic.
dd if=/dev/zero of=/dev/null bs=1 count=200000 2>/dev/null
i=0; while [ $i -lt 30 ]; do find /bin /sbin /usr /proc/sys | sort | md5sum >/dev/null; i=$((i + 1)); done
i=0; while [ $i -lt 150 ]; do /bin/true; i=$((i + 1)); done
dd if=/dev/zero bs=64k count=1500 2>/dev/null | md5sum >/dev/null
