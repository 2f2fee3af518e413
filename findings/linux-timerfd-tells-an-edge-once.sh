#!/usr/bin/env bash
# Linux 6.18: an edge-triggered epoll set tells of a periodic timerfd once, however often it expires after that.
#
# timerfd_create(2) counts expirations, and epoll(7) says that EPOLLET tells of changes. A good guess is an event
# for each expiration. But an expiration wakes nobody if the count is above zero already: there is one event in all
# until the descriptor is read. So a program that reads late must not wait for the next event.
#
# Output seen (Linux 6.18.44):
#   not read: 1 event while the timer expired at least 5 times; read after each event: at least 5 events
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/a.c" <<'C'
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
/* Events until `most` came or 200 ms passed without one, and the expirations that were left to read. */
static int events(int most, int reads, uint64_t *left) {
    struct itimerspec often = {{0, 10000000}, {0, 10000000}};
    struct epoll_event event = {EPOLLIN | EPOLLET, {0}};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), set = epoll_create1(0), seen = 0;
    uint64_t count;
    epoll_ctl(set, EPOLL_CTL_ADD, timer, &event);
    timerfd_settime(timer, 0, &often, NULL);
    while (seen < most && epoll_wait(set, &event, 1, 200) == 1) {
        seen++;
        if (reads && read(timer, &count, sizeof count) != sizeof count) return -1;
    }
    *left = 0;
    if (read(timer, left, sizeof *left) < 0) *left = 0;
    close(timer);
    close(set);
    return seen;
}
int main(void) {
    uint64_t left, none;
    int silent = events(5, 0, &left), told = events(5, 1, &none);
    printf("not read: %d event while the timer expired at least %d times; read after each event: at least %d events\n",
           silent, left >= 5 ? 5 : (int)left, told);
    return silent == 1 && left >= 5 && told == 5 ? 0 : 1;
}
C
cc -o "$place/a" "$place/a.c"
"$place/a"
