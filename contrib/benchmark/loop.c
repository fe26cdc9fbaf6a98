/* The loops that must cost nothing themselves. Each prints one number: nanoseconds for one operation.
 *
 *   loop documents N    opens, reads and closes N times, in turn, the files whose names stdin has, a line each
 *   loop stat N         the same with stat; prints the median, the 99th percentile and the maximum
 *   loop random N FILE  reads N times 4 KiB at random places
 *   loop sequential FILE   reads all of it, 1 MiB at a time
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 20];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int opened(const char *name) {
    int fd = open(name, O_RDONLY);
    if (fd < 0)
        err(1, "%s", name);
    return fd;
}

static size_t names(char ***out) {
    size_t count = 0, room = 1024, size = 0;
    char **all = malloc(room * sizeof *all), *line = NULL;
    ssize_t length;
    while ((length = getline(&line, &size, stdin)) > 0) {
        if (line[length - 1] == '\n')
            line[length - 1] = 0;
        if (count == room)
            all = realloc(all, (room *= 2) * sizeof *all);
        all[count++] = strdup(line);
    }
    if (!count)
        errx(1, "no names on stdin");
    *out = all;
    return count;
}

static void documents(long n) {
    char **all;
    size_t count = names(&all);
    double start = now();
    for (long i = 0; i < n; i++) {
        int fd = opened(all[i % count]);
        ssize_t got;
        while ((got = read(fd, buffer, sizeof buffer)) > 0)
            ;
        if (got < 0)
            err(1, "%s", all[i % count]);
        close(fd);
    }
    printf("%.0f\n", (now() - start) / n);
}

static int less(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void stats(long n) {
    char **all;
    size_t count = names(&all);
    double *took = malloc(n * sizeof *took);
    struct stat st;
    for (long i = 0; i < n; i++) {
        double start = now();
        if (stat(all[i % count], &st))
            err(1, "%s", all[i % count]);
        took[i] = now() - start;
        usleep(200);
    }
    qsort(took, n, sizeof *took, less);
    printf("%.0f %.0f %.0f\n", took[n / 2], took[n * 99 / 100], took[n - 1]);
}

static void at_random(long n, const char *name) {
    int fd = opened(name);
    off_t pages = lseek(fd, 0, SEEK_END) / 4096;
    unsigned long long state = 88172645463325252ULL;
    double start = now();
    for (long i = 0; i < n; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        if (pread(fd, buffer, 4096, (off_t)(state % pages) * 4096) != 4096)
            err(1, "%s", name);
    }
    printf("%.0f\n", (now() - start) / n);
}

static void sequential(const char *name) {
    int fd = opened(name);
    ssize_t got;
    double start = now();
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        ;
    if (got < 0)
        err(1, "%s", name);
    printf("%.0f\n", now() - start);
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "documents"))
        documents(atol(argv[2]));
    else if (argc == 3 && !strcmp(argv[1], "stat"))
        stats(atol(argv[2]));
    else if (argc == 4 && !strcmp(argv[1], "random"))
        at_random(atol(argv[2]), argv[3]);
    else if (argc == 3 && !strcmp(argv[1], "sequential"))
        sequential(argv[2]);
    else
        errx(2, "usage: see loop.c");
    return 0;
}
