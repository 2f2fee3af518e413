#!/usr/bin/env bash
# Linux, Unix streams: when a full socket has been shut down for writing by its own side, poll(2) does not report POLLOUT,
# though a write would not wait any more: it fails with EPIPE. For TCP, POLLOUT is reported.
#
# So a thread that waits in poll for room, and whose socket another thread shuts down for writing, waits on until the
# peer reads or closes. POSIX says that POLLOUT means "may be written without blocking". A send of no bytes tells the
# state without a wait.
#
# Output seen (Linux 6.18):
#   unix: full 0, shut 0, send EPIPE
#   tcp: full 0, shut 1, send EPIPE
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/a.c" <<'C'
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
static char some[1 << 16];
/* Whether POLLOUT is reported now. */
static int writable(int fd) {
    struct pollfd one = {.fd = fd, .events = POLLOUT};
    poll(&one, 1, 0);
    return (one.revents & POLLOUT) != 0;
}
static int try(const char *name, int fd, int expected) {
    while (send(fd, some, sizeof some, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {}
    int full = writable(fd);
    shutdown(fd, SHUT_WR);
    int shut = writable(fd);
    int broken = send(fd, some, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 && errno == EPIPE;
    printf("%s: full %d, shut %d, send %s\n", name, full, shut, broken ? "EPIPE" : "no EPIPE");
    return full == 0 && shut == expected && broken;
}
int main(void) {
    int both[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, both);
    int as_said = try("unix", both[0], 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&address, length);
    listen(listener, 1);
    getsockname(listener, (struct sockaddr *)&address, &length);
    connect(client, (struct sockaddr *)&address, length);
    as_said &= try("tcp", client, 1);
    return as_said ? 0 : 1;
}
C
cc -o "$place/a" "$place/a.c"
"$place/a"
