/* Reads, writes and loads a LUN through libiscsi, a client that this project
 * did not write.
 *
 *   iscsi-io size  URL                               bytes of the LUN
 *   iscsi-io read  URL OFFSET LENGTH                 to stdout
 *   iscsi-io write URL OFFSET                        from stdin
 *   iscsi-io unmap URL OFFSET LENGTH
 *   iscsi-io bench URL KIND BLOCK DEPTH SECONDS SPAN  one line of JSON
 *
 * Offsets and lengths are bytes, whole blocks of the LUN. KIND: see load.h.
 */
#include <inttypes.h>
#include <poll.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "load.h"

#define CHUNK (256u << 10)

static struct iscsi_context *iscsi;
static int lun;
static uint32_t block_size;
static uint64_t blocks;

static void die(const char *what) {
    fprintf(stderr, "iscsi-io: %s: %s\n", what, iscsi ? iscsi_get_error(iscsi) : "");
    exit(1);
}

static void attach(const char *url_text) {
    iscsi = iscsi_create_context("iqn.2026-11.io.trivet.test:iscsi-io");
    if (!iscsi) die("context");
    struct iscsi_url *url = iscsi_parse_full_url(iscsi, url_text);
    if (!url) die("URL");
    iscsi_set_targetname(iscsi, url->target);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    iscsi_set_noautoreconnect(iscsi, 1);
    lun = url->lun;
    if (iscsi_full_connect_sync(iscsi, url->portal, lun) != 0) die("connect");
    struct scsi_task *task = iscsi_readcapacity16_sync(iscsi, lun);
    if (!task || task->status != SCSI_STATUS_GOOD) die("READ CAPACITY");
    struct scsi_readcapacity16 *rc = scsi_datain_unmarshall(task);
    if (!rc) die("READ CAPACITY data");
    block_size = rc->block_length;
    blocks = rc->returned_lba + 1;
    scsi_free_scsi_task(task);
    iscsi_destroy_url(url);
}

static void detach(void) {
    iscsi_logout_sync(iscsi);
    iscsi_destroy_context(iscsi);
}

static void write_out(const unsigned char *data, size_t len) {
    while (len) {
        ssize_t n = write(STDOUT_FILENO, data, len);
        if (n <= 0) die("stdout");
        data += n;
        len -= (size_t)n;
    }
}

static size_t fill(unsigned char *data, size_t len) {
    size_t got = 0;
    while (got < len) {
        ssize_t n = read(STDIN_FILENO, data + got, len - got);
        if (n < 0) die("stdin");
        if (n == 0) break;
        got += (size_t)n;
    }
    return got;
}

static void read_range(uint64_t offset, uint64_t length) {
    while (length) {
        uint32_t n = length < CHUNK ? (uint32_t)length : CHUNK;
        struct scsi_task *task =
            iscsi_read16_sync(iscsi, lun, offset / block_size, n, (int)block_size, 0, 0, 0, 0, 0);
        if (!task || task->status != SCSI_STATUS_GOOD) die("READ(16)");
        if (task->datain.size != (int)n) die("READ(16) is short");
        write_out(task->datain.data, n);
        scsi_free_scsi_task(task);
        offset += n;
        length -= n;
    }
}

static void write_range(uint64_t offset) {
    static unsigned char data[CHUNK];
    for (;;) {
        size_t n = fill(data, sizeof data);
        if (n == 0) return;
        if (n % block_size) die("input is not whole blocks");
        struct scsi_task *task = iscsi_write16_sync(iscsi, lun, offset / block_size, data, (uint32_t)n,
                                                    (int)block_size, 0, 0, 0, 0, 0);
        if (!task || task->status != SCSI_STATUS_GOOD) die("WRITE(16)");
        scsi_free_scsi_task(task);
        offset += n;
    }
}

static void unmap(uint64_t offset, uint64_t length) {
    struct unmap_list list = {.lba = offset / block_size, .num = (uint32_t)(length / block_size)};
    struct scsi_task *task = iscsi_unmap_sync(iscsi, lun, 0, 0, &list, 1);
    if (!task || task->status != SCSI_STATUS_GOOD) die("UNMAP");
    scsi_free_scsi_task(task);
}

static struct load load;
static unsigned char *payload;

struct slot {
    uint64_t issued_ns;
};

static void issue(struct slot *slot);

static void finished(struct iscsi_context *context, int status, void *data, void *private_data) {
    (void)context;
    struct slot *slot = private_data;
    load_done(&load, slot->issued_ns, status == SCSI_STATUS_GOOD);
    load.in_flight--;
    scsi_free_scsi_task(data);
    if (!load_over(&load)) issue(slot);
}

static void issue(struct slot *slot) {
    uint64_t lba = load_offset(&load) / block_size;
    slot->issued_ns = now_ns();
    struct scsi_task *task =
        load.write ? iscsi_write16_task(iscsi, lun, lba, payload, load.block, (int)block_size, 0, 0, 0,
                                        0, 0, finished, slot)
                   : iscsi_read16_task(iscsi, lun, lba, load.block, (int)block_size, 0, 0, 0, 0, 0,
                                       finished, slot);
    if (!task) die("cannot issue");
    load.in_flight++;
}

static void bench(const char *kind, uint32_t block, uint32_t depth, double seconds, uint64_t span) {
    if (span > blocks * block_size) die("span is beyond the LUN");
    if (load_start(&load, kind, block, depth, seconds, span)) die("bad load");
    payload = malloc(block);
    struct slot *slots = calloc(depth, sizeof *slots);
    if (!payload || !slots) die("memory");
    for (uint32_t i = 0; i < block; i++) payload[i] = (unsigned char)(i * 31 + 7);
    for (uint32_t i = 0; i < depth; i++) issue(&slots[i]);
    while (load.in_flight) {
        struct pollfd pfd = {.fd = iscsi_get_fd(iscsi), .events = (short)iscsi_which_events(iscsi)};
        if (poll(&pfd, 1, 30000) <= 0) die("no answer for 30 s");
        if (iscsi_service(iscsi, pfd.revents) < 0) die("connection");
    }
    load_print(&load);
}

static uint64_t number(const char *text) { return strtoull(text, NULL, 0); }

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: iscsi-io size|read|write|unmap|bench URL ...\n");
        return 2;
    }
    const char *what = argv[1];
    attach(argv[2]);
    if (!strcmp(what, "size") && argc == 3) {
        printf("%" PRIu64 "\n", blocks * block_size);
    } else if (!strcmp(what, "read") && argc == 5) {
        read_range(number(argv[3]), number(argv[4]));
    } else if (!strcmp(what, "write") && argc == 4) {
        write_range(number(argv[3]));
    } else if (!strcmp(what, "unmap") && argc == 5) {
        unmap(number(argv[3]), number(argv[4]));
    } else if (!strcmp(what, "bench") && argc == 8) {
        bench(argv[3], (uint32_t)number(argv[4]), (uint32_t)number(argv[5]), atof(argv[6]),
              number(argv[7]));
    } else {
        fprintf(stderr, "iscsi-io: bad arguments\n");
        return 2;
    }
    detach();
    return 0;
}
