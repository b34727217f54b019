/* Preloaded into a server, sets its wall clock back by as many seconds as the file CLOCK_SET_BACK holds.
 * The machine's own clock stays as it is, and the monotonic ones do. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    const char *path = getenv("CLOCK_SET_BACK");
    FILE *file = clock == CLOCK_REALTIME && path ? fopen(path, "r") : NULL;
    if (file) {
        long seconds = 0;
        if (fscanf(file, "%ld", &seconds) == 1) now->tv_sec -= seconds;
        fclose(file);
    }
    return result;
}
