#!/usr/bin/env bash
# Linux, Unix datagrams: a send to the full queue of a peer to which the sender is not connected fails with EAGAIN, and
# raises EPOLLOUT, edge-triggered too, though there is no more room than before.
#
# The kernel charges the message to the sender's memory, and takes the charge back when the send fails. That raises
# "writable". So a loop "try, wait for EPOLLOUT, try again" never sleeps. If the sender is connected to the
# full peer, EPOLLOUT comes only when there is room.
#
# Output seen (Linux 6.18):
#   unconnected: 100 of 100 failed sends were followed by EPOLLOUT at once
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/a.c" <<'C'
#include <errno.h>
#include <stdio.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = sizeof name;
    int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), other = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    /* The kernel chooses an abstract name. */
    bind(receiver, (struct sockaddr *)&name, offsetof(struct sockaddr_un, sun_path));
    getsockname(receiver, (struct sockaddr *)&name, &length);
    while (sendto(other, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&name, length) == 1) {}
    int set = epoll_create1(0), told = 0;
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
    epoll_ctl(set, EPOLL_CTL_ADD, sender, &event);
    epoll_wait(set, &event, 1, 0);
    if (epoll_wait(set, &event, 1, 50) != 0) { puts("the first edge comes twice"); return 1; }
    for (int i = 0; i < 100; i++) {
        if (sendto(sender, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&name, length) != -1 || errno != EAGAIN) { puts("there was room"); return 1; }
        told += epoll_wait(set, &event, 1, 0) == 1;
    }
    printf("unconnected: %d of 100 failed sends were followed by EPOLLOUT at once\n", told);
    return told == 100 ? 0 : 1;
}
C
cc -o "$place/a" "$place/a.c"
"$place/a"
