/* The limit: the same work as the gateway's, in C, with epoll and next to nothing else.
 *
 *   limit PORT REDIS_PORT KEY SECRET TOPIC_PREFIX
 *
 * It shakes hands, checks signatures, subscribes in Redis, frames each event once and writes what
 * one read from Redis brought to each socket once. It trusts its clients (the bench's own load
 * generator): whole messages in one read, one channel for each socket. Not a server.
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
#include <unistd.h>

#include "digest.h"

#define MAX_FDS 20000
#define SLOTS 65536 /* of channels: never more than sockets */
#define MAX_UNSENT (64 << 20)

struct bytes {
    char *data;
    size_t size, room;
};

struct channel {
    char name[64];
    int *members;
    int count, room, confirmed, dirty;
    struct bytes frames;
};

struct client {
    int channel, place; /* its channel's slot + 1, and where it is among the members */
    uint8_t open, waiting, watched;
    char id[24];
    struct bytes unsent;
};

static struct client clients[MAX_FDS];
static struct channel channels[SLOTS];
static int dirty[SLOTS], dirty_count, poller, redis;
static struct bytes from_redis, to_redis;
static const char *key, *secret, *prefix;

static void die(const char *what) {
    fprintf(stderr, "limit: %s (%s)\n", what, strerror(errno));
    exit(1);
}

static void append(struct bytes *bytes, const void *data, size_t size) {
    if (bytes->size + size > bytes->room) {
        bytes->room = (bytes->size + size) * 2;
        bytes->data = realloc(bytes->data, bytes->room);
        if (!bytes->data) die("memory");
    }
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static void drop_front(struct bytes *bytes, size_t size) {
    bytes->size -= size;
    memmove(bytes->data, bytes->data + size, bytes->size);
}

static void watch(int fd, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, how, fd, &event)) die("epoll_ctl");
}

static void send_to(int fd, const char *data, size_t size) {
    struct client *client = clients + fd;
    ssize_t put = 0;
    if (!client->unsent.size) {
        put = send(fd, data, size, MSG_NOSIGNAL);
        if (put < 0) {
            if (errno != EAGAIN) return; /* its end will be read */
            put = 0;
        }
    }
    if ((size_t)put == size) return;
    if (client->unsent.size > MAX_UNSENT) die("a client does not read");
    append(&client->unsent, data + put, size - (size_t)put);
    if (!client->watched) {
        client->watched = 1;
        watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
}

static void send_unsent(int fd) {
    struct client *client = clients + fd;
    ssize_t put = send(fd, client->unsent.data, client->unsent.size, MSG_NOSIGNAL);
    if (put > 0) drop_front(&client->unsent, (size_t)put);
    if (!client->unsent.size) {
        free(client->unsent.data);
        memset(&client->unsent, 0, sizeof client->unsent);
        client->watched = 0;
        watch(fd, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static size_t frame_head(char *into, size_t size) {
    into[0] = (char)0x81;
    if (size < 126) return into[1] = (char)size, 2;
    return into[1] = 126, into[2] = (char)(size >> 8), into[3] = (char)size, 4;
}

static void send_text(int fd, const char *text, size_t size) {
    char frame[600];
    size_t head = frame_head(frame, size);
    memcpy(frame + head, text, size);
    send_to(fd, frame, head + size);
}

/* --- channels -------------------------------------------------------------------------------- */

static struct channel *channel_named(const char *name, size_t size, int make) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    for (uint32_t slot = hash % SLOTS;; slot = (slot + 1) % SLOTS) {
        struct channel *channel = channels + slot;
        if (!channel->name[0]) {
            if (!make) return NULL;
            memcpy(channel->name, name, size);
            return channel;
        }
        if (!strncmp(channel->name, name, size) && !channel->name[size]) return channel;
    }
}

static void ask_redis(const char *what, const struct channel *channel) {
    char text[300];
    int size = sprintf(text, "*2\r\n$%zu\r\n%s\r\n$%zu\r\n%s%s\r\n", strlen(what), what,
                       strlen(prefix) + strlen(channel->name), prefix, channel->name);
    append(&to_redis, text, (size_t)size);
}

static void tell_subscribed(int fd, const struct channel *channel) {
    char text[300];
    int size = sprintf(text, "{\"event\":\"pusher_internal:subscription_succeeded\",\"channel\":"
                             "\"%s\",\"data\":\"{}\"}", channel->name);
    clients[fd].waiting = 0;
    send_text(fd, text, (size_t)size);
}

static void join(int fd, const char *name, size_t size) {
    struct channel *channel = channel_named(name, size, 1);
    if (channel->count == channel->room) {
        channel->room = channel->room * 2 + 1;
        channel->members = realloc(channel->members, (size_t)channel->room * sizeof(int));
        if (!channel->members) die("memory");
    }
    clients[fd].channel = (int)(channel - channels) + 1;
    clients[fd].place = channel->count;
    clients[fd].waiting = 1;
    channel->members[channel->count++] = fd;
    if (channel->count == 1) {
        channel->confirmed = 0;
        ask_redis("SUBSCRIBE", channel);
    } else if (channel->confirmed) tell_subscribed(fd, channel);
}

static void leave(int fd) {
    if (!clients[fd].channel) return;
    struct channel *channel = channels + clients[fd].channel - 1;
    int last = channel->members[--channel->count];
    channel->members[clients[fd].place] = last;
    clients[last].place = clients[fd].place;
    if (!channel->count) ask_redis("UNSUBSCRIBE", channel);
}

/* --- clients --------------------------------------------------------------------------------- */

static void end(int fd) {
    leave(fd);
    free(clients[fd].unsent.data);
    memset(clients + fd, 0, sizeof clients[fd]);
    close(fd);
}

static const char *member(const char *text, size_t size, const char *name, size_t *length) {
    const char *at = memmem(text, size, name, strlen(name));
    if (!at) return NULL;
    at += strlen(name);
    const char *stop = memchr(at, '"', (size_t)(text + size - at));
    if (!stop) return NULL;
    *length = (size_t)(stop - at);
    return at;
}

static void message(int fd, const char *text, size_t size) {
    char signed_text[128], hex[65], expected[160];
    size_t name_size, auth_size;
    const char *name = member(text, size, "\"channel\":\"", &name_size);
    const char *auth = member(text, size, "\"auth\":\"", &auth_size);
    if (!name || !auth || name_size > 60) return;
    int length = sprintf(signed_text, "%s:%.*s", clients[fd].id, (int)name_size, name);
    hmac_hex(secret, signed_text, (size_t)length, hex);
    length = snprintf(expected, sizeof expected, "%s:%s", key, hex);
    if ((size_t)length == auth_size && !memcmp(auth, expected, auth_size)) join(fd, name, name_size);
}

static void shake_hands(int fd, const char *head, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static uint32_t number;
    char text[128], accept[29], answer[512];
    uint8_t sum[21] = {0};
    const char *name = "Sec-WebSocket-Key: ", *at = memmem(head, size, name, strlen(name));
    if (!at) {
        end(fd);
        return;
    }
    memcpy(text, at + strlen(name), 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    digest(text, 60, sum, 1);
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)sum[3 * i] << 16 | (uint32_t)sum[3 * i + 1] << 8 | sum[3 * i + 2];
        for (int j = 0; j < 4; j++) accept[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
    }
    accept[27] = '=', accept[28] = 0;
    clients[fd].open = 1;
    sprintf(clients[fd].id, "1.%u", ++number);
    int length = sprintf(answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                 "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    char greeting[200];
    int greeting_size = sprintf(greeting, "{\"event\":\"pusher:connection_established\",\"data\":"
        "\"{\\\"socket_id\\\":\\\"%s\\\",\\\"activity_timeout\\\":120}\"}", clients[fd].id);
    length += (int)frame_head(answer + length, (size_t)greeting_size);
    memcpy(answer + length, greeting, (size_t)greeting_size);
    send_to(fd, answer, (size_t)(length + greeting_size));
}

static void readable(int fd) {
    static char data[1 << 16];
    ssize_t got = recv(fd, data, sizeof data, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        end(fd);
        return;
    }
    if (!clients[fd].open) {
        shake_hands(fd, data, (size_t)got);
        return;
    }
    for (size_t at = 0; (size_t)got - at >= 6;) {
        uint8_t *frame = (uint8_t *)data + at;
        size_t head = 2, size = frame[1] & 127;
        if (size == 126) head = 4, size = (size_t)frame[2] << 8 | frame[3];
        if (at + head + 4 + size > (size_t)got) break;
        char *payload = (char *)frame + head + 4;
        for (size_t i = 0; i < size; i++) payload[i] ^= (char)frame[head + i % 4];
        if ((frame[0] & 15) == 1) message(fd, payload, size);
        else if ((frame[0] & 15) == 9 && size < 126) {
            char pong[128] = {(char)0x8a, (char)size};
            memcpy(pong + 2, payload, size);
            send_to(fd, pong, size + 2);
        }
        at += head + 4 + size;
    }
}

/* --- Redis ----------------------------------------------------------------------------------- */

/* The bulk string (or number) at `at`; gives where the next begins, 0 when it is not whole. */
static size_t item(size_t at, const char **data, size_t *size) {
    const char *text = from_redis.data + at;
    const char *stop = memchr(text, '\n', from_redis.size - at);
    if (!stop) return 0;
    size_t next = (size_t)(stop + 1 - from_redis.data);
    *data = text + 1, *size = (size_t)(stop - text) - 2;
    if (*text == '$') {
        long length = atol(text + 1);
        if (length < 0) return *size = 0, next;
        *data = from_redis.data + next, *size = (size_t)length;
        next += (size_t)length + 2;
    }
    return next <= from_redis.size ? next : 0;
}

static void told(const char *kind, const char *topic, size_t topic_size, const char *text,
                 size_t size) {
    size_t skip = strlen(prefix);
    if (topic_size <= skip) return;
    struct channel *channel = channel_named(topic + skip, topic_size - skip, 0);
    if (!channel || !channel->count) return;
    if (!strncmp(kind, "subscribe", 9)) {
        channel->confirmed = 1;
        for (int i = 0; i < channel->count; i++)
            if (clients[channel->members[i]].waiting) tell_subscribed(channel->members[i], channel);
    } else if (!strncmp(kind, "message", 7)) {
        const char *line = memchr(text, '\n', size);
        if (!line) return;
        char head[4];
        size -= (size_t)(line + 1 - text);
        append(&channel->frames, head, frame_head(head, size));
        append(&channel->frames, line + 1, size);
        if (!channel->dirty) channel->dirty = 1, dirty[dirty_count++] = (int)(channel - channels);
    }
}

static void redis_readable(void) {
    static char data[1 << 18];
    ssize_t got = recv(redis, data, sizeof data, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("Redis has closed the connection");
    append(&from_redis, data, (size_t)got);
    size_t at = 0;
    while (at < from_redis.size) {
        const char *part[3];
        size_t size[3], next = at;
        if (from_redis.data[at] != '*') die("what Redis sends is not understood");
        const char *stop = memchr(from_redis.data + at, '\n', from_redis.size - at);
        next = stop ? (size_t)(stop + 1 - from_redis.data) : 0;
        for (int i = 0; i < 3 && next; i++) next = next < from_redis.size ? item(next, part + i, size + i) : 0;
        if (!next) break;
        told(part[0], part[1], size[1], part[2], size[2]);
        at = next;
    }
    if (at) drop_front(&from_redis, at);
    for (int i = 0; i < dirty_count; i++) {
        struct channel *channel = channels + dirty[i];
        for (int j = 0; j < channel->count; j++)
            send_to(channel->members[j], channel->frames.data, channel->frames.size);
        channel->frames.size = 0;
        channel->dirty = 0;
    }
    dirty_count = 0;
}

static int listen_or_connect(int port, int listening) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int wrong = listening
        ? bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)
        : connect(fd, (struct sockaddr *)&address, sizeof address);
    if (fd < 0 || wrong) die("socket");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    return fd;
}

int main(int argc, char **argv) {
    static struct epoll_event events[1024];
    struct rlimit files;
    if (argc != 6) die("see the head of limit.c for the arguments");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    key = argv[3], secret = argv[4], prefix = argv[5];
    poller = epoll_create1(0);
    redis = listen_or_connect(atoi(argv[2]), 0);
    int listener = listen_or_connect(atoi(argv[1]), 1);
    for (;;) {
        int count = epoll_wait(poller, events, 1024, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                for (int fresh; (fresh = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                    int on = 1;
                    if (fresh >= MAX_FDS) {
                        close(fresh);
                        continue;
                    }
                    setsockopt(fresh, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    watch(fresh, EPOLLIN, EPOLL_CTL_ADD);
                }
            } else if (fd == redis) redis_readable();
            else {
                if (events[i].events & EPOLLOUT) send_unsent(fd);
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(fd);
            }
        }
        for (size_t put = 0; put < to_redis.size;) { /* what we ask Redis for is little */
            ssize_t sent = send(redis, to_redis.data + put, to_redis.size - put, MSG_NOSIGNAL);
            if (sent < 0 && errno != EAGAIN) die("write to Redis");
            if (sent > 0) put += (size_t)sent;
        }
        to_redis.size = 0;
    }
}
