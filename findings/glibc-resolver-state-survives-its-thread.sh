#!/usr/bin/env bash
# glibc 2.36: the resolver's settings of a thread that has ended are found by the next thread that gets its stack.
#
# `_res` belongs to the thread. The documentation says that the `_res` of a new thread is not initialised yet. The C library keeps the
# stacks of ended threads with the thread-locals on them, and clears on reuse only the word that says "initialised".
# So before its first look-up a program reads values of the ended thread from `_res` (retrans, retry, nscount).
#
# Output seen (glibc 2.36):
#   first thread sets retrans 77, retry 9; the second one finds retrans 77, retry 9
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/a.c" <<'C'
#include <netinet/in.h>
#include <pthread.h>
#include <resolv.h>
#include <stdio.h>
static int seen[2];
static void *set(void *nothing) { res_init(); _res.retrans = 77; _res.retry = 9; return nothing; }
static void *look(void *nothing) { seen[0] = _res.retrans; seen[1] = _res.retry; return nothing; }
int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, set, NULL);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, look, NULL);
    pthread_join(thread, NULL);
    printf("first thread sets retrans 77, retry 9; the second one finds retrans %d, retry %d\n", seen[0], seen[1]);
    return seen[0] == 77 && seen[1] == 9 ? 0 : 1;
}
C
cc -pthread -o "$place/a" "$place/a.c" -lresolv
"$place/a"
