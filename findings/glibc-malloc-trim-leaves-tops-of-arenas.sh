#!/usr/bin/env bash
# glibc 2.36: malloc_trim(0) gives whole free pages of every arena back, but the free end ("top") only of the first arena.
#
# The man page says that free memory at the top of the heap is released, and since 2.8 whole free pages in all arenas. The end
# of a thread's arena is neither. Freed pieces become a part of that end. So if a thread has allocated much and has freed all of it,
# the memory stays resident. A process whose memory is measured after malloc_trim(0) seems to leak; with MALLOC_ARENA_MAX=1 it does not.
#
# Output seen (MiB above the start; the first line is without the variable):
#   own arena: kept all
#   MALLOC_ARENA_MAX=1: kept little
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/trim.c" <<'C'
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { MANY = 400000, BYTES = 100 };
static void *pieces[MANY];

static void *allocate(void *unused)
{
    (void)unused;
    for (int i = 0; i < MANY; i++) {
        pieces[i] = malloc(BYTES);
        *(volatile char *)pieces[i] = 1;
    }
    return NULL;
}

static long resident(void)
{
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &size, &resident) != 2) exit(2);
    fclose(file);
    return resident / 256;
}

int main(void)
{
    long before = resident();
    pthread_t thread;
    if (pthread_create(&thread, NULL, allocate, NULL)) return 2;
    pthread_join(thread, NULL);
    long full = resident() - before;
    for (int i = 0; i < MANY; i++) free(pieces[i]);
    malloc_trim(0);
    long kept = resident() - before;
    puts(kept * 10 > full * 8 ? "kept all" : kept * 10 < full * 3 ? "kept little" : "kept some");
    return 0;
}
C
cc -O1 -pthread -o "$place/trim" "$place/trim.c"
own=$("$place/trim")
one=$(MALLOC_ARENA_MAX=1 "$place/trim")
printf 'own arena: %s\nMALLOC_ARENA_MAX=1: %s\n' "$own" "$one"
[ "$own" = "kept all" ] && [ "$one" = "kept little" ]
