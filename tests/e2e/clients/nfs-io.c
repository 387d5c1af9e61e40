/* Works on files and directories through libnfs, a client that this project
 * did not write. Mounts the export `/` of 127.0.0.1:PORT (NFS and MOUNT on the
 * same port) and does one thing:
 *
 *   nfs-io PORT stat PATH                  "file SIZE" or "dir"
 *   nfs-io PORT create|rm|mkdir|rmdir PATH
 *   nfs-io PORT rename PATH NEWPATH
 *   nfs-io PORT truncate PATH SIZE
 *   nfs-io PORT read PATH OFFSET LENGTH    to stdout
 *   nfs-io PORT write PATH OFFSET          from stdin, then COMMIT
 *   nfs-io PORT symlink TARGET PATH
 *   nfs-io PORT bench PATH KIND BLOCK DEPTH SECONDS SPAN    one line of JSON
 *
 * A failure prints libnfs's words and exits with 1. KIND: see load.h; its
 * writes are FILE_SYNC, so that they promise what the other protocols' do.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <nfsc/libnfs.h>

#include "load.h"

#define CHUNK (256u << 10)

static struct nfs_context *nfs;

static void die(const char *what) {
    fprintf(stderr, "nfs-io: %s: %s\n", what, nfs ? nfs_get_error(nfs) : "");
    exit(1);
}

static void check(int result, const char *what) {
    if (result < 0) die(what);
}

static void mount_root(const char *port) {
    char text[128];
    nfs = nfs_init_context();
    if (!nfs) die("context");
    snprintf(text, sizeof text, "nfs://127.0.0.1/?version=3&nfsport=%s&mountport=%s", port, port);
    struct nfs_url *url = nfs_parse_url_dir(nfs, text);
    if (!url) die("URL");
    nfs_set_autoreconnect(nfs, 0);
    check(nfs_mount(nfs, url->server, url->path), "mount");
    nfs_destroy_url(url);
}

static struct nfsfh *open_file(const char *path, int flags) {
    struct nfsfh *file;
    check(nfs_open(nfs, path, flags, &file), "open");
    return file;
}

static void show(const char *path) {
    struct nfs_stat_64 st;
    check(nfs_stat64(nfs, path, &st), "stat");
    if (S_ISDIR(st.nfs_mode)) puts("dir");
    else printf("file %" PRIu64 "\n", st.nfs_size);
}

static void create(const char *path) {
    struct nfsfh *file;
    check(nfs_creat(nfs, path, 0644, &file), "create");
    check(nfs_close(nfs, file), "close");
}

static void read_range(const char *path, uint64_t offset, uint64_t length) {
    static char data[CHUNK];
    struct nfsfh *file = open_file(path, O_RDONLY);
    while (length) {
        uint64_t n = length < CHUNK ? length : CHUNK;
        int got = nfs_pread(nfs, file, offset, n, data);
        check(got, "read");
        if (got == 0) die("end of file");
        if (fwrite(data, 1, (size_t)got, stdout) != (size_t)got) die("stdout");
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    nfs_close(nfs, file);
}

static void write_range(const char *path, uint64_t offset) {
    static char data[CHUNK];
    struct nfsfh *file = open_file(path, O_WRONLY);
    size_t n;
    while ((n = fread(data, 1, sizeof data, stdin)) > 0) {
        size_t done = 0;
        while (done < n) {
            int put = nfs_pwrite(nfs, file, offset + done, n - done, data + done);
            check(put, "write");
            if (put == 0) die("nothing written");
            done += (size_t)put;
        }
        offset += n;
    }
    check(nfs_fsync(nfs, file), "commit");
    check(nfs_close(nfs, file), "close");
}

static struct load load;
static struct nfsfh *bench_file;
static char *payload;

struct slot {
    uint64_t issued_ns;
};

static void issue(struct slot *slot);

static void finished(int status, struct nfs_context *context, void *data, void *private_data) {
    (void)context;
    (void)data;
    struct slot *slot = private_data;
    load_done(&load, slot->issued_ns, status == (int)load.block);
    load.in_flight--;
    if (!load_over(&load)) issue(slot);
}

static void issue(struct slot *slot) {
    uint64_t at = load_offset(&load);
    slot->issued_ns = now_ns();
    int result = load.write ? nfs_pwrite_async(nfs, bench_file, at, load.block, payload, finished, slot)
                            : nfs_pread_async(nfs, bench_file, at, load.block, finished, slot);
    check(result, "cannot issue");
    load.in_flight++;
}

static void bench(const char *path, const char *kind, uint32_t block, uint32_t depth, double seconds,
                  uint64_t span) {
    bench_file = open_file(path, strstr(kind, "write") ? O_RDWR | O_SYNC : O_RDONLY);
    if (load_start(&load, kind, block, depth, seconds, span)) die("bad load");
    payload = malloc(block);
    struct slot *slots = calloc(depth, sizeof *slots);
    if (!payload || !slots) die("memory");
    for (uint32_t i = 0; i < block; i++) payload[i] = (char)(i * 31 + 7);
    for (uint32_t i = 0; i < depth; i++) issue(&slots[i]);
    while (load.in_flight) {
        struct pollfd pfd = {.fd = nfs_get_fd(nfs), .events = (short)nfs_which_events(nfs)};
        if (poll(&pfd, 1, 30000) <= 0) die("no answer for 30 s");
        if (nfs_service(nfs, pfd.revents) < 0) die("connection");
    }
    load_print(&load);
}

static uint64_t number(const char *text) { return strtoull(text, NULL, 0); }

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: nfs-io PORT WHAT PATH ...\n");
        return 2;
    }
    const char *what = argv[2], *path = argv[3];
    mount_root(argv[1]);
    if (!strcmp(what, "stat") && argc == 4) {
        show(path);
    } else if (!strcmp(what, "create") && argc == 4) {
        create(path);
    } else if (!strcmp(what, "rm") && argc == 4) {
        check(nfs_unlink(nfs, path), "rm");
    } else if (!strcmp(what, "mkdir") && argc == 4) {
        check(nfs_mkdir(nfs, path), "mkdir");
    } else if (!strcmp(what, "rmdir") && argc == 4) {
        check(nfs_rmdir(nfs, path), "rmdir");
    } else if (!strcmp(what, "rename") && argc == 5) {
        check(nfs_rename(nfs, path, argv[4]), "rename");
    } else if (!strcmp(what, "symlink") && argc == 5) {
        check(nfs_symlink(nfs, path, argv[4]), "symlink");
    } else if (!strcmp(what, "truncate") && argc == 5) {
        check(nfs_truncate(nfs, path, number(argv[4])), "truncate");
    } else if (!strcmp(what, "read") && argc == 6) {
        read_range(path, number(argv[4]), number(argv[5]));
    } else if (!strcmp(what, "write") && argc == 5) {
        write_range(path, number(argv[4]));
    } else if (!strcmp(what, "bench") && argc == 9) {
        bench(path, argv[4], (uint32_t)number(argv[5]), (uint32_t)number(argv[6]), atof(argv[7]),
              number(argv[8]));
    } else {
        fprintf(stderr, "nfs-io: bad arguments\n");
        return 2;
    }
    if (fflush(stdout)) die("stdout");
    nfs_destroy_context(nfs);
    return 0;
}
