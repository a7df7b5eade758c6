/* Phones for benchmarks/sip.py, over UDP: cc -O2 -o sip_load sip_load.c

   sip_load requests HOST PORT WINDOW LOCAL_PORT FILE
       Sends the requests in FILE, each a 32-bit length in the machine's order and a datagram, with WINDOW of them
       waiting for an answer at a time.  The branch of the one numbered N from 0 begins with z9hG4bK-N, and differs from run to run.  A final response to an
       INVITE is acknowledged.
   sip_load calls HOST PORT WINDOW LOCAL_PORT COUNT USERS DOMAIN
       Makes COUNT calls to sip:userN@DOMAIN, which have the contact 127.0.0.1:LOCAL_PORT + 1: INVITE 100 180 200 ACK
       BYE 200, WINDOW of them at a time.  Both ends are here, and obey Record-Route.

   What is not answered within half a second is sent again, seven times (the datagram alone, not the call, whose
   transactions are the server's to repeat).  Prints JSON: the answers by status, how long it took from the first
   request to the last answer, and the time of an answer in microseconds; for calls to INVITE's 200. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define LARGEST 8192
#define AGAIN 0.5
#define TRANSMISSIONS 8

enum { WAITING = 1, CONFIRMED, DONE };

struct item { /* a request, or a call */
    char *data;
    int length, transmissions, state;
    double sent;
};

static struct item *items;
static float *microseconds;
static long count, next, done, answers, resent, failed, statuses[700];
static int to_server, callee; /* sockets */
static long window, oldest;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int bound(const char *host, int port, int local_port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(local_port)};
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
    int made = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    inet_pton(AF_INET, "127.0.0.1", &here.sin_addr);
    inet_pton(AF_INET, host, &there.sin_addr);
    setsockopt(made, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(made, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (bind(made, (struct sockaddr *)&here, sizeof here)) die("bind");
    if (connect(made, (struct sockaddr *)&there, sizeof there)) die("connect");
    return made;
}

/* -- what is to be sent goes out in batches, one for each socket ------------------------------------------------ */

static struct batch {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    char data[BATCH][LARGEST];
    int length;
} outgoing[2];

static void flush(int which) {
    struct batch *batch = &outgoing[which];
    for (int sent = 0; sent < batch->length;) {
        int more = sendmmsg(which ? callee : to_server, batch->messages + sent, batch->length - sent, 0);
        if (more < 0 && errno != EAGAIN && errno != ECONNREFUSED) die("sendmmsg");
        if (more > 0) sent += more;
    }
    batch->length = 0;
}

static char *room(int which) {
    if (outgoing[which].length == BATCH) flush(which);
    return outgoing[which].data[outgoing[which].length];
}

static void queue(int which, int length) {
    struct batch *batch = &outgoing[which];
    struct iovec *part = &batch->parts[batch->length];
    struct msghdr *header = &batch->messages[batch->length++].msg_hdr;
    part->iov_base = batch->data[part - batch->parts];
    part->iov_len = length;
    memset(header, 0, sizeof *header);
    header->msg_iov = part;
    header->msg_iovlen = 1;
}

/* -- messages ----------------------------------------------------------------------------------------------------- */

/* The value of a header field, from `from` on; its length, 0 if there is none.  Servers send names as we do. */
static int header(const char *message, const char *name, const char **value) {
    char wanted[32];
    int length = snprintf(wanted, sizeof wanted, "\r\n%s: ", name);
    const char *found = strstr(message, wanted);
    *value = "";
    if (!found) return 0;
    *value = found + length;
    return strstr(*value, "\r\n") - *value;
}

static char *copy(char *to, const char *message, const char *name) { /* all lines of a name */
    const char *value;
    int length;
    while ((length = header(message, name, &value))) {
        to += sprintf(to, "%s: %.*s\r\n", name, length, value);
        message = value + length;
    }
    return to;
}

static char *routes(char *to, const char *response) { /* Record-Route backwards, as Route */
    const char *values[16], *value, *ends[16];
    int found = 0, length;
    while ((length = header(response, "Record-Route", &value))) {
        for (const char *part = value; part && part < value + length && found < 16;) {
            const char *end = memchr(part, '>', value + length - part);
            values[found] = part;
            end = end ? memchr(end, ',', value + length - end) : NULL;
            ends[found++] = end ? end : value + length;
            part = end ? end + 1 + (end[1] == ' ') : NULL;
        }
        response = value + length;
    }
    while (found--) to += sprintf(to, "Route: %.*s\r\n", (int)(ends[found] - values[found]), values[found]);
    return to;
}

static long number(const char *message) { /* of our branch, in the topmost Via */
    const char *found = strstr(message, "branch=z9hG4bK-");
    return found ? atol(found + 15) : -1;
}

static const char *uri(const char *message, const char *name, int *length) { /* what stands in <> */
    const char *value, *end;
    int size = header(message, name, &value);
    const char *start = size ? memchr(value, '<', size) : NULL;
    if (!start) return NULL;
    end = memchr(start, '>', value + size - start);
    *length = end - start - 1;
    return start + 1;
}

/* -- requests from a file ----------------------------------------------------------------------------------------- */

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t length;
    long room = 0;
    if (!file) die(path);
    while (fread(&length, 4, 1, file) == 1) {
        if (count == room) items = realloc(items, (room = 2 * room + 1024) * sizeof *items);
        items[count] = (struct item){.data = malloc(length + 1), .length = length};
        if (length >= LARGEST || fread(items[count].data, 1, length, file) != length) die("too short a file");
        items[count++].data[length] = 0;
    }
    fclose(file);
}

static void send_item(long index) {
    memcpy(room(0), items[index].data, items[index].length);
    queue(0, items[index].length);
}

static void acknowledge(long index, const char *response) {
    const char *request = items[index].data, *end = strchr(request + 7, ' '), *to;
    char *data = room(0), *start = data;
    int length = header(response, "To", &to);
    data += sprintf(data, "ACK %.*s SIP/2.0\r\n", (int)(end - request - 7), request + 7);
    data = copy(copy(copy(data, request, "Via"), request, "From"), request, "Call-ID");
    data += sprintf(data, "To: %.*s\r\nCSeq: 1 ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", length, to);
    queue(0, data - start);
}

/* -- calls -------------------------------------------------------------------------------------------------------- */

static const char SDP[] =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 30000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n";
static const char *domain;
static int users, local_port;

static char *begin(char *to, long index, const char *kind) { /* what the caller's requests have in common */
    return to + sprintf(to,
        "Via: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bK-%ld%s%d;rport\r\nMax-Forwards: 70\r\n"
        "From: <sip:user%ld@%s>;tag=caller\r\nCall-ID: %ld-%d\r\n",
        local_port, index, kind, (int)getpid(), (index + 1) % users, domain, index, (int)getpid());
}

static void invite(long index) {
    char *data = room(0), *start = data;
    data += sprintf(data, "INVITE sip:user%ld@%s SIP/2.0\r\n", index % users, domain);
    data = begin(data, index, "-i");
    data += sprintf(data,
        "To: <sip:user%ld@%s>\r\nCSeq: 1 INVITE\r\nContact: <sip:user%ld@127.0.0.1:%d>\r\n"
        "Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
        index % users, domain, (index + 1) % users, local_port, (int)sizeof SDP - 1, SDP);
    queue(0, data - start);
}

static void within(long index, const char *response, const char *method, int cseq, const char *kind) {
    char *data = room(0), *start = data;
    const char *to, *target;
    int length = header(response, "To", &to), target_length = 0;
    target = uri(response, "Contact", &target_length);
    data += sprintf(data, "%s %.*s SIP/2.0\r\n", method, target_length, target);
    data = routes(begin(data, index, kind), response);
    data += sprintf(data, "To: %.*s\r\nCSeq: %d %s\r\nContent-Length: 0\r\n\r\n", length, to, cseq, method);
    queue(0, data - start);
}

static void respond(const char *request, int status, const char *reason, int sdp) {
    char *data = room(1), *start = data;
    const char *to;
    int length = header(request, "To", &to);
    data += sprintf(data, "SIP/2.0 %d %s\r\n", status, reason);
    data = copy(copy(copy(data, request, "Via"), request, "Record-Route"), request, "From");
    data = copy(copy(data, request, "Call-ID"), request, "CSeq");
    data += sprintf(data, "To: %.*s%s\r\nContact: <sip:callee@127.0.0.1:%d>\r\n", length, to,
                    memmem(to, length, ";tag=", 5) ? "" : ";tag=callee", local_port + 1);
    if (sdp) data += sprintf(data, "Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", (int)sizeof SDP - 1, SDP);
    else data += sprintf(data, "Content-Length: 0\r\n\r\n");
    queue(1, data - start);
}

static void called(const char *request) {
    if (!strncmp(request, "INVITE ", 7)) {
        respond(request, 180, "Ringing", 0);
        respond(request, 200, "OK", 1);
    } else if (!strncmp(request, "BYE ", 4)) {
        respond(request, 200, "OK", 0);
    }
}

/* -- both --------------------------------------------------------------------------------------------------------- */

static void finish(struct item *item, int status) {
    item->state = DONE;
    statuses[status]++;
    done++;
}

static void timed(struct item *item) {
    if (item->transmissions == 1) microseconds[answers++] = (now() - item->sent) * 1e6;
}

static void answered(const char *response) {
    int status = atoi(response + 8);
    long index = number(response);
    const char *cseq;
    if (status < 200 || status > 699 || index < 0 || index >= count || items[index].state == DONE) return;
    struct item *item = &items[index];
    int method = header(response, "CSeq", &cseq) ? strchr(cseq, ' ')[1] : 0;
    if (!domain) {
        timed(item);
        if (method == 'I') acknowledge(index, response);
        finish(item, status);
    } else if (method == 'B') {
        finish(item, status);
    } else if (status >= 300) {
        finish(item, status); /* its ACK is not sent: a call that fails spoils the figures anyhow */
    } else if (item->state == WAITING) {
        timed(item);
        item->state = CONFIRMED;
        within(index, response, "ACK", 1, "-a");
        within(index, response, "BYE", 2, "-b");
    }
}

static void receive(int from, void (*take)(const char *)) {
    static char data[BATCH][LARGEST + 1];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){data[i], LARGEST};
        memset(&messages[i], 0, sizeof messages[i]);
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int received = recvmmsg(from, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < received; i++) {
        data[i][messages[i].msg_len] = 0;
        if (messages[i].msg_len > 12) take(data[i]);
    }
}

static void start(long index) {
    items[index].sent = now();
    items[index].transmissions++;
    if (domain) invite(index);
    else send_item(index);
}

static void repeat(void) {
    double before = now() - AGAIN;
    while (oldest < next && items[oldest].state == DONE) oldest++;
    for (long index = oldest; index < next; index++) {
        struct item *item = &items[index];
        if (item->state == DONE || item->sent > before) continue;
        if (item->transmissions >= TRANSMISSIONS) {
            item->state = DONE;
            failed++;
            done++;
        } else if (item->state == WAITING) {
            resent++;
            start(index);
        } else {
            item->sent = now();
            item->transmissions++;
        }
    }
}

static int by_size(const void *a, const void *b) {
    float one = *(const float *)a, other = *(const float *)b;
    return (one > other) - (one < other);
}

int main(int argc, char **argv) {
    if (argc < 7) return fprintf(stderr, "see the top of sip_load.c\n"), 2;
    local_port = atoi(argv[5]);
    window = atol(argv[4]);
    to_server = bound(argv[2], atoi(argv[3]), local_port);
    if (!strcmp(argv[1], "requests")) {
        load(argv[6]);
    } else {
        count = atol(argv[6]);
        users = atoi(argv[7]);
        domain = argv[8];
        items = calloc(count, sizeof *items);
    }
    callee = bound(argv[2], atoi(argv[3]), local_port + 1);
    microseconds = malloc((count + 1) * sizeof *microseconds);
    double began = now(), looked = began;
    while (done < count) {
        while (next < count && next - done < window) {
            items[next].state = WAITING;
            start(next++);
        }
        flush(0);
        flush(1);
        /* It never sleeps: waking it would cost the server more than some servers take for an answer. */
        receive(to_server, answered);
        receive(callee, called);
        if (now() - looked > 0.1) {
            looked = now();
            repeat();
        }
    }
    flush(0);
    double took = now() - began;
    qsort(microseconds, answers, sizeof *microseconds, by_size);
    printf("{\"seconds\": %.6f, \"resent\": %ld, \"failed\": %ld, \"p50_us\": %.1f, \"p99_us\": %.1f, \"statuses\": {",
           took, resent, failed, answers ? microseconds[answers / 2] : 0, answers ? microseconds[answers * 99 / 100] : 0);
    const char *comma = "";
    for (int status = 200; status < 700; status++)
        if (statuses[status]) {
            printf("%s\"%d\": %ld", comma, status, statuses[status]);
            comma = ", ";
        }
    printf("}}\n");
    return 0;
}
