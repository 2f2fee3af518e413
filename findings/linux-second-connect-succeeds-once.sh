#!/usr/bin/env bash
# Linux, connect(2): after a connection that was made without waiting, the next connect gives 0, and only the
# connect after that gives EISCONN.
#
# The manual page says that connect fails with EISCONN if the socket is connected. Linux keeps the socket in the state
# "connecting" until a call of connect has seen that the connection is there; poll(2) and SO_ERROR do not change the state. A program that takes 0
# for "this call has connected" counts a connection twice.
#
# Output seen (Linux 6.18):
#   first: EINPROGRESS, SO_ERROR 0, second: 0, third: EISCONN
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/a.c" <<'C'
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
int main(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof to;
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    bind(listener, (struct sockaddr *)&to, sizeof to);
    listen(listener, 8);
    getsockname(listener, (struct sockaddr *)&to, &length);
    int result[3], error[3], pending = -1;
    for (int i = 0; i < 3; i++) {
        errno = 0;
        result[i] = connect(fd, (struct sockaddr *)&to, sizeof to);
        error[i] = errno;
        if (i == 0) {
            struct pollfd one = {fd, POLLOUT, 0};
            socklen_t size = sizeof pending;
            poll(&one, 1, 2000);
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &pending, &size);
        }
    }
    int as_seen = result[0] < 0 && error[0] == EINPROGRESS && pending == 0 && result[1] == 0 && result[2] < 0 && error[2] == EISCONN;
    printf("first: %s, SO_ERROR %d, second: %d, third: %s\n", error[0] == EINPROGRESS ? "EINPROGRESS" : "other", pending, result[1],
           error[2] == EISCONN ? "EISCONN" : "other");
    return as_seen ? 0 : 1;
}
C
cc -o "$place/a" "$place/a.c"
"$place/a"
