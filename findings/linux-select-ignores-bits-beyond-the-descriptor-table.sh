#!/usr/bin/env bash
# Linux, select(2): a bit of a number that is beyond the process's descriptor table is ignored. No EBADF.
#
# POSIX and the manual page ask for EBADF where a set names a descriptor that is not open. Linux says so only for
# numbers below the size of the process's descriptor table, which grows with the numbers in use (64 or 256 at
# first). A higher bit is dropped, so a select on nothing but such a number waits out its limit, or for ever.
#
# Output seen (Linux 6.18):
#   number 20, not open: EBADF
#   number 999, not open: 0 after the limit
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/a.c" <<'C'
#include <errno.h>
#include <stdio.h>
#include <sys/select.h>
static int try(int number) {
    fd_set set;
    struct timeval limit = {0, 100000};
    FD_ZERO(&set);
    FD_SET(number, &set);
    int n = select(number + 1, &set, NULL, NULL, &limit);
    if (n < 0 && errno == EBADF) { printf("number %d, not open: EBADF\n", number); return 1; }
    printf("number %d, not open: %d after the limit\n", number, n);
    return n == 0 ? 2 : 3;
}
int main(void) { return try(20) == 1 && try(999) == 2 ? 0 : 1; }
C
cc -o "$place/a" "$place/a.c"
"$place/a"
