/* The load generator: tens of thousands of WebSocket clients in one thread, on loopback only.
 *
 *   load SERVER_PORT REDIS_PORT NUMBER pusher|socketio PATH KEY SECRET TOPIC_PREFIX
 *
 * It reads one command a line from stdin and answers each with one line of JSON:
 *
 *   connect COUNT IN_FLIGHT own|one|pairs   open more sockets, to COUNT, each subscribed
 *   drop                                    reset all connections
 *   storm                                   reset all, come back all at once
 *   padding BYTES                           of every event from now on
 *   run RATE SECONDS SETTLE PROBE           publish; PROBE 1: ping all the time as well
 *   stall                                   read nothing more from the first socket
 *   resume SECONDS                          read it again, to its end
 *   status                                  how many are open
 *   quit
 *
 * Pings are answered all the time. Every event carries its number in its channel and the time at
 * which it was due (not when it was really sent: waiting in here counts as well). A frame is
 * found by its marker, so that it does not matter how a server wraps it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"

#define MAX_SOCKETS 19800
#define SOCKETS_PER_ADDRESS 8000
#define READ_BYTES (1 << 20)
#define MAX_PADDING 60000
#define CONNECT_LIMIT_NS 120000000000LL
#define PUBLISH_EVERY_NS 500000LL
#define MAX_BATCH 2000
#define MARKER "@#"
#define NUMBER_DIGITS 10
#define TIME_DIGITS 19
#define HISTOGRAM_SLOTS 2048
#define TARDY_NS 3000000LL

enum state { UNUSED, CONNECTING, HEAD, GREETING, SUBSCRIBING, OPEN, ENDED };
enum layout { OWN, ONE, PAIRS };

struct client {
    int fd;
    uint8_t state, stalled;
    uint16_t close_code;
    uint32_t next; /* the number of the next event */
    uint32_t rest_size, rest_room;
    char *rest; /* the beginning of a frame (or head) whose end has not come yet */
};

static struct client clients[MAX_SOCKETS];
static uint32_t sent_in[MAX_SOCKETS]; /* events published so far, for each channel */
static char buffer[READ_BYTES + (1 << 17)];
static int poller, redis, used, open_count, in_flight, failed, ended, socketio, server_port, number;
static enum layout layout = OWN;
static const char *path, *key, *secret, *prefix;
static char *out;
static size_t out_size, out_room, out_sent, padding = 100;
static uint64_t deliveries, lost, doubled, disordered, redis_answers, strange;
static uint64_t histogram[HISTOGRAM_SLOTS], pongs[HISTOGRAM_SLOTS];
static int64_t worst, worst_pong, late_by;
static int64_t ping_at, tardy_at;
static uint64_t pings_spoiled, pongs_over;
static int pinging, ping_out, last_code, stdin_ready;
static uint64_t random_state = 88172645463325252ULL;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s (%s)\n", what, errno ? strerror(errno) : "no system error");
    exit(1);
}

static uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* --- histogram: microseconds, 64 slots for each power of two ------------------------------- */

static int slot_of(uint64_t us) {
    int shift = us < 128 ? 0 : 57 - __builtin_clzll(us);
    int slot = shift * 64 + (int)(us >> shift);
    return slot < HISTOGRAM_SLOTS ? slot : HISTOGRAM_SLOTS - 1;
}

static double percentile_ms(const uint64_t *slots, double share) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < HISTOGRAM_SLOTS; i++) total += slots[i];
    if (!total) return 0;
    uint64_t wanted = (uint64_t)(share * (double)total);
    for (int i = 0; i < HISTOGRAM_SLOTS; i++) {
        seen += slots[i];
        if (seen > wanted || seen == total) {
            int shift = i < 128 ? 0 : i / 64 - 1;
            return (double)((uint64_t)(i - shift * 64 + 1) << shift) / 1000.0;
        }
    }
    return 0;
}

/* --- sockets -------------------------------------------------------------------------------- */

static int channel_of(int index) {
    return layout == ONE ? 0 : layout == PAIRS ? index / 2 : index;
}

static int name_of(int channel, char *into) {
    static const char *kinds[] = {"own", "all", "pair"};
    return sprintf(into, "private-%s-%d-%06d", kinds[layout], number, channel);
}

static void watch(int fd, uint32_t events, uint64_t data, int how) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    if (epoll_ctl(poller, how, fd, &event)) die("epoll_ctl");
}

static void end(struct client *client) {
    if (client->state >= CONNECTING && client->state <= SUBSCRIBING) in_flight--, failed++;
    if (client->state == OPEN) open_count--, ended++;
    client->state = ENDED;
    close(client->fd);
    client->fd = -1;
    free(client->rest);
    client->rest = NULL;
    client->rest_size = client->rest_room = 0;
    if (client == clients) ping_out = 0;
}

static void begin(int index) {
    struct client *client = clients + index;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int on = 1;
    /* both ends are of 127.0.0.0/8, whatever the arguments were: nothing here leaves the machine */
    from.sin_addr.s_addr = htonl(0x7f000000u + 0x100u * (unsigned)(number + 1) + 10u +
                                 (unsigned)(index / SOCKETS_PER_ADDRESS));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)server_port);
    memset(client, 0, sizeof *client);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->fd < 0) die("socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(client->fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    client->state = CONNECTING;
    in_flight++;
    if (connect(client->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        end(client);
        return;
    }
    watch(client->fd, EPOLLOUT, (uint64_t)index, EPOLL_CTL_ADD);
}

static void send_frame(struct client *client, int opcode, const char *text, size_t size) {
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t frame[1024];
    size_t head = size < 126 ? 2 : 4;
    if (size > 1000) die("a frame of the bench is too long");
    frame[0] = (uint8_t)(0x80 | opcode);
    frame[1] = (uint8_t)(0x80 | (size < 126 ? size : 126));
    if (head == 4) frame[2] = (uint8_t)(size >> 8), frame[3] = (uint8_t)size;
    memcpy(frame + head, mask, 4);
    for (size_t i = 0; i < size; i++) frame[head + 4 + i] = (uint8_t)text[i] ^ mask[i % 4];
    size_t total = head + 4 + size;
    /* a client that has so little to say never fills its send buffer, unless the server hangs */
    if (send(client->fd, frame, total, MSG_NOSIGNAL) != (ssize_t)total) end(client);
}

static void subscribe(struct client *client, const char *id, size_t id_size) {
    char text[400], name[64], hex[65], message[600];
    int channel = channel_of((int)(client - clients));
    if (id_size > 200) id_size = 200;
    name_of(channel, name);
    int size = sprintf(text, "%.*s:%s", (int)id_size, id, name);
    hmac_hex(secret, text, (size_t)size, hex);
    const char *form = socketio
        ? "42[\"subscribe\",{\"channel\":\"%s\",\"auth\":\"%s:%s\"}]"
        : "{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"%s\",\"auth\":\"%s:%s\"}}";
    size = sprintf(message, form, name, key, hex);
    client->state = SUBSCRIBING;
    send_frame(client, 1, message, (size_t)size);
}

static int has(const char *text, size_t size, const char *what) {
    return memmem(text, size, what, strlen(what)) != NULL;
}

/* The value of a JSON string member, also inside of an escaped document. */
static const char *member(const char *text, size_t size, const char *name, size_t *length) {
    const char *limit = text + size, *at = memmem(text, size, name, strlen(name));
    if (!at) return NULL;
    for (at += strlen(name); at < limit && strchr("\\\": ", *at); at++) {}
    const char *stop = at;
    while (stop < limit && *stop != '\\' && *stop != '"') stop++;
    *length = (size_t)(stop - at);
    return at;
}

static int64_t digits(const char *text, int count) {
    int64_t value = 0;
    for (int i = 0; i < count; i++) value = value * 10 + (text[i] - '0');
    return value;
}

static void delivery(struct client *client, const char *marked, int64_t now) {
    uint32_t got = (uint32_t)digits(marked, NUMBER_DIGITS);
    int64_t took = now - digits(marked + NUMBER_DIGITS, TIME_DIGITS);
    if (took < 0) took = 0;
    deliveries++;
    histogram[slot_of((uint64_t)took / 1000)]++;
    if (took > worst) worst = took;
    if (got == client->next) client->next++;
    else if (got > client->next) lost += got - client->next, client->next = got + 1;
    else if (got + 1 == client->next) doubled++;
    else disordered++;
}

static void text_frame(struct client *client, const char *text, size_t size, int64_t now) {
    size_t length;
    const char *found;
    if (client->state == OPEN) {
        found = memmem(text, size, MARKER, sizeof MARKER - 1);
        if (found && (size_t)(text + size - found) > 2 + NUMBER_DIGITS + TIME_DIGITS)
            delivery(client, found + 2, now);
        else if (socketio && size == 1 && *text == '2') send_frame(client, 1, "3", 1);
        else if (has(text, size, "pusher:ping"))
            send_frame(client, 1, "{\"event\":\"pusher:pong\",\"data\":{}}", 33);
        else strange++;
    } else if (client->state == GREETING) {
        if (socketio && size && *text == '0') send_frame(client, 1, "40", 2);
        else if ((found = member(text, size, socketio ? "\"sid" : "socket_id", &length)))
            subscribe(client, found, length);
        else strange++;
    } else if (client->state == SUBSCRIBING) {
        if (has(text, size, "subscription_succeeded")) {
            client->state = OPEN;
            client->next = sent_in[channel_of((int)(client - clients))];
            in_flight--, open_count++;
        } else if (socketio && size == 1 && *text == '2') send_frame(client, 1, "3", 1);
        else {
            if (!strange++) fprintf(stderr, "load: not subscribed: %.*s\n", (int)size, text);
            end(client);
        }
    }
}

/* Take whole frames; gives how many bytes were used. */
static size_t frames(struct client *client, const char *data, size_t size, int64_t now) {
    size_t at = 0;
    while (size - at >= 2 && client->state != ENDED) {
        const uint8_t *head = (const uint8_t *)data + at;
        size_t head_size = 2, length = head[1] & 127;
        int opcode = head[0] & 15;
        if (length == 126) head_size = 4;
        else if (length == 127) head_size = 10;
        if (size - at < head_size) break;
        if (length == 126) length = (size_t)head[2] << 8 | head[3];
        else if (length == 127) length = (size_t)word_at(head + 6);
        if (size - at < head_size + length) break;
        const char *payload = data + at + head_size;
        at += head_size + length;
        if (opcode == 1 || opcode == 2) text_frame(client, payload, length, now);
        else if (opcode == 9) send_frame(client, 10, payload, length);
        else if (opcode == 10 && length == 8 && client == clients && ping_out) {
            int64_t since;
            memcpy(&since, payload, 8);
            ping_out = 0;
            if (tardy_at > since) pings_spoiled++; /* the delay was (also) our own */
            else {
                pongs[slot_of((uint64_t)(now - since) / 1000)]++;
                if (now - since > worst_pong) worst_pong = now - since;
                pongs_over += now - since > 20000000;
            }
        } else if (opcode == 8) {
            if (length >= 2) last_code = (uint8_t)payload[0] << 8 | (uint8_t)payload[1];
            client->close_code = (uint16_t)last_code;
            end(client);
        }
    }
    return at;
}

static void keep(struct client *client, const char *data, size_t size) {
    if (size > client->rest_room) {
        client->rest_room = (uint32_t)size + 256;
        client->rest = realloc(client->rest, client->rest_room);
        if (!client->rest) die("memory");
    }
    memmove(client->rest, data, size);
    client->rest_size = (uint32_t)size;
}

static void readable(struct client *client) {
    size_t kept = client->rest_size;
    if (kept) memcpy(buffer, client->rest, kept);
    ssize_t got = recv(client->fd, buffer + kept, READ_BYTES, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        end(client);
        return;
    }
    int64_t now = now_ns();
    size_t size = kept + (size_t)got, start = 0;
    client->rest_size = 0;
    if (client->state == HEAD) {
        char *stop = memmem(buffer, size, "\r\n\r\n", 4);
        if (!stop) {
            keep(client, buffer, size);
            return;
        }
        if (strncmp(buffer, "HTTP/1.1 101", 12) ||
            !has(buffer, size, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
            if (!strange++) fprintf(stderr, "load: no upgrade: %.*s\n", (int)size, buffer);
            end(client);
            return;
        }
        client->state = GREETING;
        start = (size_t)(stop + 4 - buffer);
    }
    start += frames(client, buffer + start, size - start, now);
    if (client->state != ENDED && start < size) {
        if (size - start > (1 << 17)) die("a frame of the server is too long");
        keep(client, buffer + start, size - start);
    } else if (client->state == OPEN && client->rest) {
        free(client->rest);
        client->rest = NULL;
        client->rest_room = 0;
    }
}

static void writable(struct client *client, int index) {
    char request[512];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        end(client);
        return;
    }
    int length = sprintf(request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path);
    watch(client->fd, EPOLLIN, (uint64_t)index, EPOLL_CTL_MOD);
    client->state = HEAD;
    if (send(client->fd, request, (size_t)length, MSG_NOSIGNAL) != length) end(client);
}

/* --- Redis ----------------------------------------------------------------------------------- */

static void redis_connect(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    redis = socket(AF_INET, SOCK_STREAM, 0);
    if (redis < 0 || connect(redis, (struct sockaddr *)&to, sizeof to)) die("connect to Redis");
    setsockopt(redis, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(redis, F_SETFL, O_NONBLOCK);
    watch(redis, EPOLLIN, MAX_SOCKETS, EPOLL_CTL_ADD);
}

static void redis_write(void) {
    while (out_sent < out_size) {
        ssize_t put = send(redis, out + out_sent, out_size - out_sent, MSG_NOSIGNAL);
        if (put < 0 && errno == EAGAIN) break;
        if (put < 0) die("write to Redis");
        out_sent += (size_t)put;
    }
    static int waits;
    if (out_sent == out_size) out_sent = out_size = 0;
    if ((out_size > 0) != waits) {
        waits = !waits;
        watch(redis, waits ? EPOLLIN | EPOLLOUT : EPOLLIN, MAX_SOCKETS, EPOLL_CTL_MOD);
    }
}

static void redis_read(void) {
    static char answers[1 << 16];
    ssize_t got = recv(redis, answers, sizeof answers, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) die("Redis has closed the connection");
    for (ssize_t i = 0; i < got; i++) {
        redis_answers += answers[i] == ':';
        if (answers[i] == '-') die("Redis refused a command");
    }
}

static void publish(int channel, int64_t due) {
    char name[64], message[256], topic[160];
    int name_size = name_of(channel, name);
    int topic_size = sprintf(topic, "%s%s", prefix, name);
    int head = sprintf(message, "\n{\"event\":\"bench\",\"channel\":\"%.*s\",\"data\":\"" MARKER
                       "%0*u%0*lld", name_size, name, NUMBER_DIGITS, sent_in[channel], TIME_DIGITS,
                       (long long)due);
    size_t total = (size_t)head + padding + 2;
    sent_in[channel]++;
    if (out_room - out_size < total + 400) {
        out_room = out_room * 2 + total + 65536;
        out = realloc(out, out_room);
        if (!out) die("memory");
    }
    out_size += (size_t)sprintf(out + out_size, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%zu\r\n%s",
                                topic_size, topic, total, message);
    memset(out + out_size, 'x', padding);
    out_size += padding;
    memcpy(out + out_size, "\"}\r\n", 4);
    out_size += 4;
}

/* --- the loop -------------------------------------------------------------------------------- */

static void pump(int64_t until) {
    static struct epoll_event events[1024];
    int64_t before = now_ns(), wait = until - before;
    if (pinging && !ping_out && ping_at < until) wait = ping_at - before;
    if (wait < 0) wait = 0;
    struct timespec limit = {wait / 1000000000LL, wait % 1000000000LL};
    int count = epoll_pwait2(poller, events, 1024, &limit, NULL);
    if (count < 0 && errno != EINTR) die("epoll");
    int64_t now = now_ns();
    if (now - before - wait > TARDY_NS && count >= 0) tardy_at = now; /* asleep for too long */
    for (int i = 0; i < count; i++) {
        uint64_t index = events[i].data.u64;
        if (index == MAX_SOCKETS + 1) stdin_ready = 1;
        else if (index == MAX_SOCKETS) {
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) redis_read();
            if (events[i].events & EPOLLOUT) redis_write();
        } else {
            struct client *client = clients + index;
            if (client->state == CONNECTING) writable(client, (int)index);
            else if (client->state != ENDED) readable(client);
        }
    }
    int64_t done = now_ns();
    if (done - now > TARDY_NS) tardy_at = done;
    if (pinging && !ping_out && done >= ping_at && clients[0].state == OPEN) {
        ping_out = 1;
        ping_at = done + 1000000;
        send_frame(clients, 9, (const char *)&done, 8);
    }
}

static double cpu_seconds(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void answer_connected(int64_t started, double cpu) {
    double seconds = (double)(now_ns() - started) / 1e9;
    printf("{\"open\":%d,\"failed\":%d,\"seconds\":%.4f,\"cpu_share\":%.3f}\n", open_count, failed,
           seconds, (cpu_seconds() - cpu) / seconds);
}

static void command_connect(int count, int window) {
    int64_t started = now_ns(), limit = started + CONNECT_LIMIT_NS;
    double cpu = cpu_seconds();
    failed = 0;
    if (count > MAX_SOCKETS) count = MAX_SOCKETS;
    while ((used < count || in_flight) && now_ns() < limit) {
        for (int burst = 0; used < count && in_flight < window && burst < 64; burst++) begin(used++);
        pump(used < count && in_flight < window ? 0 : limit);
    }
    answer_connected(started, cpu);
}

static void reset_all(void) {
    struct linger now = {1, 0};
    for (int i = 0; i < used; i++)
        if (clients[i].state != UNUSED && clients[i].state != ENDED) {
            setsockopt(clients[i].fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            end(clients + i);
        }
    open_count = in_flight = ended = failed = 0;
}

static void command_storm(void) {
    int count = used;
    int64_t started = now_ns(), limit = started + CONNECT_LIMIT_NS;
    double cpu = cpu_seconds();
    reset_all();
    for (used = 0; used < count; used++) {
        begin(used);
        if (used % 256 == 255) pump(0);
    }
    while (in_flight && now_ns() < limit) pump(limit);
    answer_connected(started, cpu);
}

static void command_run(double rate, double seconds, double settle, int probe) {
    int channels = layout == ONE ? 1 : layout == PAIRS ? used / 2 : used;
    int readers = layout == ONE ? used : layout == PAIRS ? 2 : 1;
    if (clients[0].stalled && layout == ONE) readers--;
    int ended_before = ended, overloaded = 0;
    uint64_t sent = 0, planned = (uint64_t)(rate * seconds + 0.5), answers = redis_answers;
    deliveries = lost = doubled = disordered = strange = pongs_over = pings_spoiled = 0;
    worst = worst_pong = late_by = tardy_at = 0;
    memset(histogram, 0, sizeof histogram);
    memset(pongs, 0, sizeof pongs);
    int64_t started = now_ns() + 1000000, last = started;
    double cpu = cpu_seconds();
    pinging = probe;
    ping_at = started;
    int64_t finish = started + (int64_t)(seconds * 1e9);
    while (now_ns() < finish && !overloaded) {
        int64_t now = now_ns(), due = finish;
        for (int batch = 0; sent < planned && batch < MAX_BATCH; batch++) {
            due = started + (int64_t)((double)sent * 1e9 / rate);
            if (due > now) break;
            if (now - due > late_by) late_by = now - due;
            publish(layout == ONE ? 0 : (int)(random_next() % (unsigned)channels), due);
            sent++;
        }
        if (out_size) redis_write();
        last = now;
        if (due < last + PUBLISH_EVERY_NS) due = last + PUBLISH_EVERY_NS;
        pump(due);
        double behind = (double)(sent * (unsigned)readers) - (double)deliveries;
        overloaded = behind > rate * readers * 0.4 && behind > 4.0 * readers;
    }
    double sending = (double)(now_ns() - started) / 1e9;
    uint64_t wanted = sent * (unsigned)readers;
    int64_t limit = now_ns() + (int64_t)(settle * 1e9);
    pinging = 0;
    while (deliveries + lost < wanted && now_ns() < limit) {
        if (out_size) redis_write();
        pump(now_ns() + 1000000);
    }
    if (deliveries < wanted) lost = wanted - deliveries;
    double took = (double)(now_ns() - started) / 1e9;
    printf("{\"offered\":%.1f,\"sent\":%llu,\"wanted\":%llu,\"deliveries\":%llu,\"lost\":%llu,"
           "\"doubled\":%llu,\"disordered\":%llu,\"strange\":%llu,\"overloaded\":%s,"
           "\"seconds\":%.4f,\"settled_seconds\":%.4f,"
           "\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f,"
           "\"late_ms\":%.3f,\"cpu_share\":%.3f,\"ended\":%d,\"published\":%llu,"
           "\"pong_p50_ms\":%.3f,\"pong_p99_ms\":%.3f,\"pong_max_ms\":%.3f,\"pongs_over_20_ms\":%llu,"
           "\"pongs_spoiled\":%llu}\n",
           rate, (unsigned long long)sent, (unsigned long long)wanted,
           (unsigned long long)deliveries, (unsigned long long)lost, (unsigned long long)doubled,
           (unsigned long long)disordered, (unsigned long long)strange,
           overloaded ? "true" : "false", sending, took, percentile_ms(histogram, 0.5),
           percentile_ms(histogram, 0.9), percentile_ms(histogram, 0.99),
           percentile_ms(histogram, 0.999), (double)worst / 1e6, (double)late_by / 1e6,
           (cpu_seconds() - cpu) / took, ended - ended_before,
           (unsigned long long)(redis_answers - answers), percentile_ms(pongs, 0.5),
           percentile_ms(pongs, 0.99), (double)worst_pong / 1e6, (unsigned long long)pongs_over,
           (unsigned long long)pings_spoiled);
    if (deliveries < wanted) /* what still comes belongs to no run: begin anew where we are */
        for (int i = 0; i < used; i++)
            if (clients[i].state == OPEN) clients[i].next = sent_in[channel_of(i)];
}

static void command_stall(void) {
    clients[0].stalled = 1;
    epoll_ctl(poller, EPOLL_CTL_DEL, clients[0].fd, NULL);
    printf("{}\n");
}

static void command_resume(double seconds) {
    struct client *client = clients;
    uint64_t before = deliveries;
    const char *how = "open";
    last_code = 0;
    if (client->state == OPEN) {
        watch(client->fd, EPOLLIN, 0, EPOLL_CTL_ADD);
        int64_t limit = now_ns() + (int64_t)(seconds * 1e9);
        while (client->state == OPEN && now_ns() < limit) pump(limit);
    }
    if (client->state == ENDED) how = last_code ? "close frame" : "end of the stream";
    printf("{\"how\":\"%s\",\"code\":%d,\"deliveries\":%llu}\n", how, last_code,
           (unsigned long long)(deliveries - before));
}

static int command(char *line) {
    int count, window, probe;
    double rate, seconds, settle;
    char kind[16];
    if (sscanf(line, "connect %d %d %15s", &count, &window, kind) == 3) {
        if (!used) layout = !strcmp(kind, "one") ? ONE : !strcmp(kind, "pairs") ? PAIRS : OWN;
        command_connect(count, window);
    } else if (!strncmp(line, "drop", 4)) {
        reset_all();
        used = 0;
        memset(sent_in, 0, sizeof sent_in);
        printf("{}\n");
    } else if (!strncmp(line, "storm", 5)) command_storm();
    else if (sscanf(line, "padding %zu", &padding) == 1) {
        if (padding > MAX_PADDING) padding = MAX_PADDING;
        printf("{}\n");
    } else if (sscanf(line, "run %lf %lf %lf %d", &rate, &seconds, &settle, &probe) == 4)
        command_run(rate, seconds, settle, probe);
    else if (!strncmp(line, "stall", 5)) command_stall();
    else if (sscanf(line, "resume %lf", &seconds) == 1) command_resume(seconds);
    else if (!strncmp(line, "status", 6)) printf("{\"open\":%d,\"ended\":%d,\"code\":%d}\n", open_count, ended, last_code);
    else if (!strncmp(line, "quit", 4)) return 0;
    else die("unknown command");
    fflush(stdout);
    return 1;
}

int main(int argc, char **argv) {
    static char lines[4096];
    size_t filled = 0;
    struct rlimit files;
    if (argc != 9) die("see the head of load.c for the arguments");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    server_port = atoi(argv[1]);
    number = atoi(argv[3]) & 63;
    random_state += (uint64_t)number * 7919;
    socketio = !strcmp(argv[4], "socketio");
    path = argv[5], key = argv[6], secret = argv[7], prefix = argv[8];
    if (strlen(path) > 200 || strlen(prefix) > 80 || strlen(secret) > 64) die("too long");
    poller = epoll_create1(0);
    redis_connect(atoi(argv[2]));
    fcntl(0, F_SETFL, O_NONBLOCK);
    watch(0, EPOLLIN, MAX_SOCKETS + 1, EPOLL_CTL_ADD);
    for (;;) {
        pump(now_ns() + 1000000000LL);
        if (!stdin_ready) continue;
        stdin_ready = 0;
        ssize_t got = read(0, lines + filled, sizeof lines - 1 - filled);
        if (got == 0) return 0; /* whoever gave the commands is gone */
        if (got < 0) continue;
        filled += (size_t)got;
        lines[filled] = 0;
        char *stop;
        while ((stop = strchr(lines, '\n'))) {
            *stop = 0;
            if (!command(lines)) return 0;
            filled -= (size_t)(stop + 1 - lines);
            memmove(lines, stop + 1, filled + 1);
        }
    }
}
