/* A closed loop of equal operations, the same for every protocol: picks
 * offsets, times each operation, stops after a number of seconds, prints one
 * line of JSON. It knows nothing of sockets: its caller issues and completes.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* Latencies kept for the percentiles; later operations are counted only. */
#define LOAD_SAMPLES (4u << 20)

struct load {
    int random;           /* offsets uniformly random, else one after another */
    int write;
    uint32_t block;       /* bytes per operation */
    uint32_t depth;       /* operations in flight */
    uint64_t span;        /* bytes of the image that are used */
    uint64_t next;        /* offset of the next sequential operation */
    uint64_t seed;
    uint64_t started_ns, end_ns;
    uint64_t started_cpu_us;
    uint64_t done, errors;
    uint32_t in_flight;
    uint32_t *latency_us;
};

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Microseconds of processor time that this process has used. */
static inline uint64_t cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000u +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* KIND is randread, randwrite, read or write. */
static inline int load_start(struct load *l, const char *kind, uint32_t block, uint32_t depth,
                             double seconds, uint64_t span) {
    memset(l, 0, sizeof *l);
    l->random = strncmp(kind, "rand", 4) == 0;
    const char *direction = l->random ? kind + 4 : kind;
    l->write = strcmp(direction, "write") == 0;
    if (!l->write && strcmp(direction, "read") != 0) return -1;
    if (block == 0 || depth == 0 || span < block) return -1;
    l->block = block;
    l->depth = depth;
    l->span = span / block * block;
    l->seed = 0x9e3779b97f4a7c15u;
    l->latency_us = malloc(LOAD_SAMPLES * sizeof *l->latency_us);
    if (!l->latency_us) return -1;
    l->started_cpu_us = cpu_us();
    l->started_ns = now_ns();
    l->end_ns = l->started_ns + (uint64_t)(seconds * 1e9);
    return 0;
}

static inline int load_over(const struct load *l) { return now_ns() >= l->end_ns; }

static inline uint64_t load_offset(struct load *l) {
    uint64_t at = l->next;
    if (l->random) {
        l->seed ^= l->seed << 13;
        l->seed ^= l->seed >> 7;
        l->seed ^= l->seed << 17;
        return l->seed % (l->span / l->block) * l->block;
    }
    l->next = (at + l->block) % l->span;
    return at;
}

static inline void load_done(struct load *l, uint64_t issued_ns, int ok) {
    uint64_t us = (now_ns() - issued_ns) / 1000;
    if (l->done < LOAD_SAMPLES) l->latency_us[l->done] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    l->done++;
    if (!ok) l->errors++;
}

static inline int load_compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static inline void load_print(struct load *l) {
    uint64_t kept = l->done < LOAD_SAMPLES ? l->done : LOAD_SAMPLES;
    double seconds = (double)(now_ns() - l->started_ns) / 1e9;
    uint64_t cpu = cpu_us() - l->started_cpu_us;
    uint32_t p50 = 0, p99 = 0;
    if (kept) {
        qsort(l->latency_us, kept, sizeof *l->latency_us, load_compare);
        p50 = l->latency_us[kept / 2];
        p99 = l->latency_us[kept * 99 / 100];
    }
    printf("{\"ops\": %llu, \"errors\": %llu, \"seconds\": %.3f, \"p50_us\": %u, \"p99_us\": %u, "
           "\"cpu_us\": %llu}\n",
           (unsigned long long)l->done, (unsigned long long)l->errors, seconds, p50, p99,
           (unsigned long long)cpu);
}

#endif
