// weft-echo: the one network tool of the end-to-end tests, in hosts and in containers.
//
//   weft-echo init                              pid 1 of a test host: reaps, and ends (and with it the host) when its
//                                               standard input closes, so a killed test run leaves nothing behind
//   weft-echo serve PORT...                     answers TCP, UDP and SCTP over both families with
//                                               "server-hostname client-address client-port" and logs each request
//   weft-echo ask [-t MS] [-b ADDR] [-s SPORT] [-m TEXT] PROTO HOST PORT
//                                               sends TEXT once, prints the answer; exit 1: refused or no answer
//   weft-echo keepalive [-i MS] [-d MS] [-s SPORT] PROTO HOST PORT
//                                               one connection, a message each MS; at the end (duration, SIGTERM)
//                                               prints one JSON line with counts, longest gap, the gaps over a second
//                                               as [end by CLOCK_MONOTONIC, length] in ms, and who answered
//   weft-echo scan HOST FROM TO                 prints the TCP ports that accept, one a line
//   weft-echo forge LINK MAC SRC DST PORT TEXT  an IPv4 UDP datagram with any addresses, to a given neighbour
//
// SCTP is spoken in raw packets (INIT is answered by INIT ACK, the answer travels in its state cookie), so it tests the
// packet path, conntrack and NAT checksums also on kernels without SCTP sockets.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FDS = 512, MAX_TEXT = 512, SCTP_INIT = 1, SCTP_INIT_ACK = 2, SCTP_STATE_COOKIE = 7 };

static volatile sig_atomic_t stopped;
static void onStop(int signal) { (void)signal; stopped = 1; }

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static long long nowMs(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// "ADDRESS PORT", with IPv4 shown as such also when it came in over a dual-stack socket.
static const char *peerText(const struct sockaddr_in6 *peer) {
    static char text[INET6_ADDRSTRLEN + 8], address[INET6_ADDRSTRLEN];
    if (IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr))
        inet_ntop(AF_INET, &peer->sin6_addr.s6_addr[12], address, sizeof address);
    else
        inet_ntop(AF_INET6, &peer->sin6_addr, address, sizeof address);
    snprintf(text, sizeof text, "%s %d", address, ntohs(peer->sin6_port));
    return text;
}

static int answer(char *out, const char *protocol, int port, const struct sockaddr_in6 *peer, const char *text, int length) {
    char host[64];
    gethostname(host, sizeof host);
    while (length > 0 && text[length - 1] == '\n') length--;
    printf("%s %d from %s: %.*s\n", protocol, port, peerText(peer), length, text);
    return snprintf(out, MAX_TEXT, "%s %s\n", host, peerText(peer));
}

// --- SCTP in raw packets ---

struct SctpPacket {
    uint16_t source, destination;
    uint32_t tag, checksum;
    uint8_t chunkType, chunkFlags;
    uint16_t chunkLength;
    uint32_t initTag, window;
    uint16_t streamsOut, streamsIn;
    uint32_t tsn;
    uint16_t parameterType, parameterLength;
    char text[MAX_TEXT];
} __attribute__((packed));

static uint32_t crc32c(const void *data, size_t length) {
    uint32_t crc = ~0u;
    for (const uint8_t *byte = data; length--; byte++) {
        crc ^= *byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static int sctpChecksumIsRight(struct SctpPacket *packet, size_t length) {
    uint32_t sent = packet->checksum;
    packet->checksum = 0;
    return crc32c(packet, length) == sent;
}

static size_t sctpFill(struct SctpPacket *packet, int chunkType, uint16_t source, uint16_t destination, uint32_t tag,
                       const char *text, size_t textLength) {
    size_t length = offsetof(struct SctpPacket, text) + (textLength + 3) / 4 * 4;
    memset(packet, 0, sizeof *packet);
    packet->source = source;
    packet->destination = destination;
    packet->tag = tag;
    packet->chunkType = (uint8_t)chunkType;
    packet->initTag = htonl(0x77656674);
    packet->window = htonl(65536);
    packet->streamsOut = packet->streamsIn = htons(1);
    packet->parameterType = htons(chunkType == SCTP_INIT ? 0x8777 : SCTP_STATE_COOKIE);  // 0x8777: unknown, to be skipped
    packet->parameterLength = htons((uint16_t)(4 + textLength));
    packet->chunkLength = htons((uint16_t)(length - offsetof(struct SctpPacket, chunkType)));
    memcpy(packet->text, text, textLength);
    packet->checksum = crc32c(packet, length);
    return length;
}

// Strips the IP header that raw IPv4 sockets deliver; checks length, checksum and type.
static struct SctpPacket *sctpParse(int family, char *buffer, ssize_t length, int chunkType, int *textLength) {
    size_t skip = family == AF_INET ? (size_t)((struct iphdr *)buffer)->ihl * 4 : 0;
    struct SctpPacket *packet = (struct SctpPacket *)(buffer + skip);
    size_t fixed = offsetof(struct SctpPacket, text);
    if (length < 0 || (size_t)length < skip + fixed || packet->chunkType != chunkType) return NULL;
    if (!sctpChecksumIsRight(packet, (size_t)length - skip)) {
        fprintf(stderr, "sctp: wrong checksum\n");
        return NULL;
    }
    *textLength = ntohs(packet->parameterLength) - 4;
    if (*textLength < 0 || (size_t)*textLength > (size_t)length - skip - fixed) return NULL;
    return packet;
}

// --- serve ---

static int ports[64], portCount;

// Receives with the local address in `control`, so that the answer can leave from the address that was asked.
static ssize_t receiveFrom(int fd, char *buffer, size_t size, struct sockaddr_storage *peer, struct msghdr *message,
                           char *control, size_t controlSize) {
    static struct iovec part;
    part = (struct iovec){buffer, size};
    *message = (struct msghdr){.msg_name = peer, .msg_namelen = sizeof *peer, .msg_iov = &part, .msg_iovlen = 1,
                               .msg_control = control, .msg_controllen = controlSize};
    return recvmsg(fd, message, 0);
}

static void sendBack(int fd, struct msghdr *message, const void *data, size_t length) {
    // Leave from the address that was asked, by whichever link the routes say.
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *info = (struct in_pktinfo *)CMSG_DATA(c);
            info->ipi_ifindex = 0;
            info->ipi_spec_dst = info->ipi_addr;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo *info = (struct in6_pktinfo *)CMSG_DATA(c);
            if (!IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr)) info->ipi6_ifindex = 0;
        }
    }
    message->msg_iov->iov_base = (void *)data;
    message->msg_iov->iov_len = length;
    sendmsg(fd, message, 0);
}

static void serveDatagram(int fd, int port) {
    char text[MAX_TEXT], control[256], out[MAX_TEXT];
    struct sockaddr_storage peer;
    struct msghdr message;
    ssize_t length = receiveFrom(fd, text, sizeof text, &peer, &message, control, sizeof control);
    if (length < 0) return;
    int size = answer(out, "udp", port, (struct sockaddr_in6 *)&peer, text, (int)length);
    sendBack(fd, &message, out, (size_t)size);
}

static void serveSctp(int fd, int family) {
    char buffer[2048], control[256], out[MAX_TEXT];
    struct sockaddr_storage from;
    struct msghdr message;
    int textLength;
    ssize_t length = receiveFrom(fd, buffer, sizeof buffer, &from, &message, control, sizeof control);
    struct SctpPacket *packet = sctpParse(family, buffer, length, SCTP_INIT, &textLength), reply;
    if (!packet) return;
    int port = ntohs(packet->destination), known = 0;
    for (int i = 0; i < portCount; i++) known |= ports[i] == port;
    if (!known) return;
    struct sockaddr_in6 peer = {.sin6_family = AF_INET6, .sin6_port = packet->source};
    if (family == AF_INET6) {
        peer.sin6_addr = ((struct sockaddr_in6 *)&from)->sin6_addr;
    } else {
        peer.sin6_addr.s6_addr[10] = peer.sin6_addr.s6_addr[11] = 0xff;
        memcpy(&peer.sin6_addr.s6_addr[12], &((struct sockaddr_in *)&from)->sin_addr, 4);
    }
    int size = answer(out, "sctp", port, &peer, packet->text, textLength);
    size_t total = sctpFill(&reply, SCTP_INIT_ACK, packet->destination, packet->source, packet->initTag, out, (size_t)size);
    sendBack(fd, &message, &reply, total);
}

static int bound(int type, int port) {
    int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0), on = 1, off = 0;
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&any, sizeof any) || (type == SOCK_STREAM && listen(fd, 64)))
        die("port %d: %s", port, strerror(errno));
    return fd;
}

static int rawSctp(int family) {
    int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP), on = 1;
    if (family == AF_INET) setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    else setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    return fd;  // -1 without CAP_NET_RAW; poll() skips it
}

static int serve(int count, char **arguments) {
    struct pollfd fds[MAX_FDS];
    struct { int port; enum { Listener, Datagram, Raw4, Raw6, Stream } kind; } what[MAX_FDS];
    int used = 0;
#define ADD(FD, KIND, PORT) (fds[used].fd = (FD), fds[used].events = POLLIN, what[used].kind = (KIND), what[used++].port = (PORT))
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (portCount = 0; portCount < count && portCount < 64; portCount++) {
        ports[portCount] = atoi(arguments[portCount]);
        ADD(bound(SOCK_STREAM, ports[portCount]), Listener, ports[portCount]);
        ADD(bound(SOCK_DGRAM, ports[portCount]), Datagram, ports[portCount]);
    }
    ADD(rawSctp(AF_INET), Raw4, 0);
    ADD(rawSctp(AF_INET6), Raw6, 0);
    while (!stopped) {
        if (poll(fds, (nfds_t)used, -1) < 0) continue;
        for (int i = used - 1; i >= 0; i--) {
            if (!fds[i].revents) continue;
            char text[MAX_TEXT], out[MAX_TEXT];
            struct sockaddr_in6 peer;
            socklen_t size = sizeof peer;
            switch (what[i].kind) {
            case Listener: {
                int fd = accept4(fds[i].fd, NULL, NULL, SOCK_CLOEXEC);
                if (fd >= 0 && used < MAX_FDS) ADD(fd, Stream, what[i].port);
                else close(fd);
                break;
            }
            case Datagram: serveDatagram(fds[i].fd, what[i].port); break;
            case Raw4: serveSctp(fds[i].fd, AF_INET); break;
            case Raw6: serveSctp(fds[i].fd, AF_INET6); break;
            case Stream: {
                ssize_t length = read(fds[i].fd, text, sizeof text);
                if (length > 0 && !getpeername(fds[i].fd, (struct sockaddr *)&peer, &size)) {
                    int bytes = answer(out, "tcp", what[i].port, &peer, text, (int)length);
                    if (send(fds[i].fd, out, (size_t)bytes, MSG_NOSIGNAL) == bytes) break;
                }
                close(fds[i].fd);
                fds[i] = fds[--used];
                what[i] = what[used];
            }
            }
        }
    }
    return 0;
}

// --- ask, keepalive ---

enum { LONG_GAP_MS = 1000, MAX_GAPS = 200, LATE_MS = 1000 };

struct Target {
    int type;  // SOCK_STREAM, SOCK_DGRAM; SOCK_RAW: SCTP
    int timeoutMs, intervalMs, durationMs, sourcePort;
    const char *bindAddress, *text;
    struct addrinfo *address;
};

static struct Target parseTarget(int count, char **arguments) {
    struct Target target = {.timeoutMs = 3000, .intervalMs = 10, .durationMs = 3600 * 1000, .text = "hi"};
    int option;
    while ((option = getopt(count, arguments, "t:b:s:m:i:d:")) != -1) {
        switch (option) {
        case 't': target.timeoutMs = atoi(optarg); break;
        case 'b': target.bindAddress = optarg; break;
        case 's': target.sourcePort = atoi(optarg); break;
        case 'm': target.text = optarg; break;
        case 'i': target.intervalMs = atoi(optarg); break;
        case 'd': target.durationMs = atoi(optarg); break;
        default: exit(2);
        }
    }
    if (count - optind != 3) die("usage: weft-echo ask|keepalive [options] tcp|udp|sctp HOST PORT");
    const char *protocol = arguments[optind];
    target.type = !strcmp(protocol, "tcp") ? SOCK_STREAM : !strcmp(protocol, "udp") ? SOCK_DGRAM : SOCK_RAW;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int failed = getaddrinfo(arguments[optind + 1], arguments[optind + 2], &hints, &target.address);
    if (failed) die("%s: %s", arguments[optind + 1], gai_strerror(failed));
    return target;
}

static int connected(const struct Target *target) {
    int family = target->address->ai_family, on = 1;
    int fd = socket(family, target->type | SOCK_CLOEXEC, target->type == SOCK_RAW ? IPPROTO_SCTP : 0);
    struct timeval limit = {target->timeoutMs / 1000, target->timeoutMs % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // also limits connect()
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (target->bindAddress || (target->sourcePort && target->type != SOCK_RAW)) {
        struct addrinfo hints = {.ai_family = family, .ai_flags = AI_NUMERICHOST | AI_PASSIVE}, *local;
        char port[8];
        snprintf(port, sizeof port, "%d", target->type == SOCK_RAW ? 0 : target->sourcePort);
        if (getaddrinfo(target->bindAddress, port, &hints, &local) || bind(fd, local->ai_addr, local->ai_addrlen))
            die("bind: %s", strerror(errno));
    }
    struct sockaddr_storage peer;
    memcpy(&peer, target->address->ai_addr, target->address->ai_addrlen);
    if (target->type == SOCK_RAW && family == AF_INET6) ((struct sockaddr_in6 *)&peer)->sin6_port = 0;
    if (connect(fd, (struct sockaddr *)&peer, target->address->ai_addrlen))
        die("connect: %s", errno == EINPROGRESS ? "timed out" : strerror(errno));
    return fd;
}

static void sendText(const struct Target *target, int fd) {
    struct SctpPacket packet;
    size_t length = strlen(target->text);
    const void *data = target->text;
    if (target->type == SOCK_RAW) {
        uint16_t port = ((struct sockaddr_in *)target->address->ai_addr)->sin_port;  // at the same place in sockaddr_in6
        uint16_t source = target->sourcePort ? (uint16_t)target->sourcePort : (uint16_t)(32768 + getpid() % 28000);
        length = sctpFill(&packet, SCTP_INIT, htons(source), port, 0, target->text, length);
        data = &packet;
    }
    send(fd, data, length, MSG_NOSIGNAL);
}

// One answer into `text`, NUL-terminated; 0 if none came in time, -1 with errno.
static int receiveText(const struct Target *target, int fd, char *text, int timeoutMs) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, timeoutMs) <= 0) return 0;
    char buffer[2048];
    ssize_t length = recv(fd, buffer, sizeof buffer, 0);
    if (length <= 0) {
        if (length == 0) errno = ECONNRESET;
        return -1;
    }
    const char *from = buffer;
    int size = (int)length;
    if (target->type == SOCK_RAW) {
        struct SctpPacket *packet = sctpParse(target->address->ai_family, buffer, length, SCTP_INIT_ACK, &size);
        if (!packet) return 0;
        from = packet->text;
    }
    snprintf(text, MAX_TEXT, "%.*s", size, from);
    return 1;
}

static int ask(int count, char **arguments) {
    struct Target target = parseTarget(count, arguments);
    int fd = connected(&target);
    char text[MAX_TEXT];
    long long end = nowMs() + target.timeoutMs, next = 0;
    while (nowMs() < end) {
        if (nowMs() >= next && (target.type != SOCK_STREAM || !next)) {  // a datagram is repeated: ARP may eat the first
            sendText(&target, fd);
            next = nowMs() + 250;
        }
        int got = receiveText(&target, fd, text, target.type == SOCK_STREAM ? (int)(end - nowMs()) : 50);
        if (got > 0) return fputs(text, stdout) < 0;
        if (got < 0) die("receive: %s", strerror(errno));
    }
    die("no answer within %d ms", target.timeoutMs);
    return 1;
}

static int keepalive(int count, char **arguments) {
    struct Target target = parseTarget(count, arguments);
    int fd = connected(&target), broken = 0;
    long long start = nowMs(), last = start, next = start, longest = 0, sent = 0, received = 0;
    long long gaps[MAX_GAPS][2];
    int gapCount = 0;
    char text[MAX_TEXT], server[64], servers[MAX_TEXT] = "";
    while (!stopped && !broken && nowMs() - start < target.durationMs) {
        if (nowMs() >= next) {
            sendText(&target, fd);
            sent++;
            next += target.intervalMs;
        }
        long long wait = next - nowMs();
        int got = receiveText(&target, fd, text, wait > 0 ? (int)wait : 0);
        if (got > 0) {
            long long now = nowMs(), gap = now - last;
            if (gap > longest) longest = gap;
            if (gap > LONG_GAP_MS && gapCount < MAX_GAPS) {
                gaps[gapCount][0] = now;
                gaps[gapCount++][1] = gap;
            }
            last = now;
            received++;
            if (sscanf(text, "%63s", server) == 1 && !strstr(servers, server) && strlen(servers) < 400)
                sprintf(servers + strlen(servers), "%s\"%s\"", *servers ? ", " : "", server);
        } else if (got < 0 && errno != EINTR && target.type == SOCK_STREAM) {
            broken = errno;
        }
    }
    if (nowMs() - last > longest) longest = nowMs() - last;
    // A starved machine answers late; only what does not come at all is lost. TCP's messages may come as one.
    for (int got = 1; got && target.type == SOCK_DGRAM && received < sent; received += got > 0)
        got = receiveText(&target, fd, text, LATE_MS);
    printf("{\"sent\": %lld, \"received\": %lld, \"longest_gap_ms\": %lld, \"gaps\": [", sent, received, longest);
    for (int i = 0; i < gapCount; i++) printf("%s[%lld, %lld]", i ? ", " : "", gaps[i][0], gaps[i][1]);
    printf("], \"servers\": [%s], \"error\": \"%s\"}\n", servers, broken ? strerror(broken) : "");
    return 0;
}

static int scan(int count, char **arguments) {
    if (count != 3) die("usage: weft-echo scan HOST FROM TO");
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *address;
    if (getaddrinfo(arguments[0], "0", &hints, &address)) die("%s: not an address", arguments[0]);
    for (int port = atoi(arguments[1]); port <= atoi(arguments[2]) && !stopped; port++) {
        struct timeval limit = {0, 100 * 1000};
        int fd = socket(address->ai_family, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        ((struct sockaddr_in *)address->ai_addr)->sin_port = htons((uint16_t)port);  // at the same place in sockaddr_in6
        if (!connect(fd, address->ai_addr, address->ai_addrlen)) printf("%d\n", port);
        close(fd);
    }
    return 0;
}

// --- forge ---

static uint16_t ipChecksum(const void *data, int length) {
    uint32_t sum = 0;
    for (const uint16_t *word = data; length > 0; length -= 2) sum += *word++;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static int forge(int count, char **arguments) {
    if (count != 6) die("usage: weft-echo forge LINK MAC SOURCE DESTINATION PORT TEXT");
    struct { struct iphdr ip; struct udphdr udp; char text[MAX_TEXT]; } packet = {0};
    size_t textLength = strlen(arguments[5]), length = sizeof packet.ip + sizeof packet.udp + textLength;
    packet.ip = (struct iphdr){.ihl = 5, .version = 4, .tot_len = htons((uint16_t)length), .ttl = 64, .protocol = IPPROTO_UDP,
                               .saddr = inet_addr(arguments[2]), .daddr = inet_addr(arguments[3])};
    packet.ip.check = ipChecksum(&packet.ip, sizeof packet.ip);
    packet.udp = (struct udphdr){.source = htons(4242), .dest = htons((uint16_t)atoi(arguments[4])),
                                 .len = htons((uint16_t)(sizeof packet.udp + textLength))};
    memcpy(packet.text, arguments[5], textLength);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_halen = 6,
                             .sll_ifindex = (int)if_nametoindex(arguments[0])};
    memcpy(to.sll_addr, ether_aton(arguments[1]), 6);
    int fd = socket(AF_PACKET, SOCK_DGRAM, 0);
    if (sendto(fd, &packet, length, 0, (struct sockaddr *)&to, sizeof to) < 0) die("send: %s", strerror(errno));
    return 0;
}

static int init(void) {
    prctl(PR_SET_NAME, "weft-t-init");
    signal(SIGCHLD, SIG_IGN);  // the kernel reaps orphans
    signal(SIGTERM, SIG_IGN);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) != 0) {
    }
    return 0;
}

int main(int count, char **arguments) {
    struct sigaction stop = {.sa_handler = onStop};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    const char *command = count > 1 ? arguments[1] : "";
    if (!strcmp(command, "init")) return init();
    if (!strcmp(command, "serve")) return serve(count - 2, arguments + 2);
    if (!strcmp(command, "ask")) return ask(count - 1, arguments + 1);
    if (!strcmp(command, "keepalive")) return keepalive(count - 1, arguments + 1);
    if (!strcmp(command, "scan")) return scan(count - 2, arguments + 2);
    if (!strcmp(command, "forge")) return forge(count - 2, arguments + 2);
    fprintf(stderr, "usage: weft-echo init|serve|ask|keepalive|scan|forge ...\n");
    return 2;
}
