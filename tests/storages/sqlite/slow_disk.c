/* A library for LD_PRELOAD that makes reads of a database file take 20 ms, as on a disk that has to seek.
 *
 * SLOW_DATABASE is the path of the file. Its write-ahead log is as slow. The length of the file SLOW_DATABASE.slow, in
 * bytes, is how many of a thousand pages are slow, the same ones each time. Without that file, none is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
static const struct timespec LATENCY = {0, 20 * 1000 * 1000};

static void wait_for_disk(int file, off64_t offset) {
    const char *database = getenv("SLOW_DATABASE");
    char link[64], path[PATH_MAX], control[PATH_MAX];
    struct stat slow;
    if (!database) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (strncmp(path, database, strlen(database)) != 0) return;
    snprintf(control, sizeof control, "%s.slow", database);
    if (stat(control, &slow) != 0) return;
    unsigned page = (unsigned)(offset / PAGE) * 2654435761u;
    if ((page >> 16) % 1000 < slow.st_size) nanosleep(&LATENCY, NULL);
}

typedef ssize_t (*read_at)(int, void *, size_t, off64_t);

ssize_t pread64(int file, void *bytes, size_t length, off64_t offset) {
    static read_at next;
    if (!next) next = (read_at)dlsym(RTLD_NEXT, "pread64");
    wait_for_disk(file, offset);
    return next(file, bytes, length, offset);
}

ssize_t pread(int file, void *bytes, size_t length, off_t offset) {
    return pread64(file, bytes, length, offset);
}
