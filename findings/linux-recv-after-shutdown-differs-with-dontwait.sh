#!/usr/bin/env bash
# Linux, recv(2) on a datagram socket whose reading side is shut: a call that may wait gives 0, a call with
# MSG_DONTWAIT gives EAGAIN.
#
# For a stream both give 0, the end. For UDP and Unix datagrams only a call that is about to wait sees the
# end. So a program that tries without waiting, and waits for readiness after EAGAIN, loops for ever:
# poll(2) says readable, the call says EAGAIN.
#
# Output seen (Linux 6.18):
#   UDP: poll says 1, MSG_DONTWAIT EAGAIN, waiting call 0
#   Unix datagram: poll says 1, MSG_DONTWAIT EAGAIN, waiting call 0
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/a.c" <<'C'
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
static int look(const char *name, int fd) {
    char byte;
    shutdown(fd, SHUT_RD);
    struct pollfd one = {fd, POLLIN, 0};
    int ready = poll(&one, 1, 0);
    int tried = recv(fd, &byte, 1, MSG_DONTWAIT), error = errno;
    struct timeval limit = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int waited = recv(fd, &byte, 1, 0);
    int again = tried < 0 && error == EAGAIN;
    printf("%s: poll says %d, MSG_DONTWAIT %s, waiting call %d\n", name, ready, again ? "EAGAIN" : "other", waited);
    return ready == 1 && again && waited == 0;
}
int main(void) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof any;
    int udp = socket(AF_INET, SOCK_DGRAM, 0), pair[2];
    bind(udp, (struct sockaddr *)&any, sizeof any);
    getsockname(udp, (struct sockaddr *)&any, &length);
    connect(udp, (struct sockaddr *)&any, sizeof any);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    int one = look("UDP", udp), two = look("Unix datagram", pair[0]);
    return one && two ? 0 : 1;
}
C
cc -o "$place/a" "$place/a.c"
"$place/a"
