// Asks a DNS server for one name, many times or until it is there, or floods it.
//
//     dns_load ask SERVER NAME SECONDS RATE    RATE queries a second; 0: as many as are answered, 64 at once
//     dns_load flood SERVER SECONDS [NAME]     queries, or without a name garbage, as fast as it goes
//     dns_load await SERVER                    reads names, and answers each with when it was first found
//
// `ask` and `flood` print one JSON object; a query is lost when there was no answer a second after the last one was
// sent. `await` asks each millisecond, for 90 s at most, and prints a line NAME TIME ADDRESS, with seconds of
// CLOCK_MONOTONIC and an IPv4 address, or NAME.
#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
using Micros = std::chrono::duration<double, std::micro>;

constexpr size_t kHeader = 12;
constexpr size_t kSockets = 16;  // of one asker: programs ask from many ports
constexpr size_t kWindow = 64;
constexpr std::chrono::milliseconds kGrace{1000};
constexpr std::chrono::seconds kPatience{90};

int connectTo(const char* server) {
    addrinfo hints{};
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    hints.ai_socktype = SOCK_DGRAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(server, "53", &hints, &found) != 0) {
        std::fprintf(stderr, "%s: no address\n", server);
        std::exit(2);
    }
    const int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        std::perror(server);
        std::exit(1);
    }
    freeaddrinfo(found);
    return fd;
}

// For the A record; the id is to be filled in.
std::vector<uint8_t> queryFor(const std::string& name) {
    std::vector<uint8_t> query = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
    for (size_t begin = 0; begin <= name.size();) {
        const size_t end = std::min(name.find('.', begin), name.size());
        query.push_back(static_cast<uint8_t>(end - begin));
        query.insert(query.end(), name.begin() + static_cast<std::ptrdiff_t>(begin),
                     name.begin() + static_cast<std::ptrdiff_t>(end));
        begin = end + 1;
    }
    query.insert(query.end(), {0, 0, 1, 0, 1});
    return query;
}

void setId(std::vector<uint8_t>& query, size_t id) {
    query[0] = static_cast<uint8_t>(id >> 8);
    query[1] = static_cast<uint8_t>(id);
}

using Answer = std::array<uint8_t, 1500>;

// False: nothing there.
bool receive(int fd, Answer& answer, ssize_t& size) {
    size = recv(fd, answer.data(), answer.size(), 0);
    return size >= static_cast<ssize_t>(kHeader);
}

bool isRight(const Answer& answer) {
    return (answer[3] & 15) == 0 && (answer[6] | answer[7]) != 0;
}

int ask(const char* server, const std::string& name, double seconds, double rate) {
    std::array<pollfd, kSockets> sockets{};
    for (pollfd& one : sockets) one = {connectTo(server), POLLIN, 0};
    std::vector<uint8_t> query = queryFor(name);
    std::vector<Time> asked(65536);  // by id; no time: answered
    std::vector<double> taken;
    size_t sent = 0;
    size_t wrong = 0;
    size_t open = 0;
    Answer answer;
    const Time start = Clock::now();
    const Time end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    Time last = start;  // sign of life
    for (;;) {
        Time now = Clock::now();
        if (now >= end + kGrace || (now >= end && open == 0)) break;
        if (rate == 0 && now - last > kGrace) open = 0;  // they are lost
        const auto due = static_cast<size_t>(std::chrono::duration<double>(now - start).count() * rate) + 1;
        while (now < end && (rate == 0 ? open < kWindow : sent < due)) {
            const size_t id = sent % asked.size();
            setId(query, id);
            asked[id] = now = Clock::now();
            ++open;
            if (send(sockets[sent++ % kSockets].fd, query.data(), query.size(), 0) < 0) break;
        }
        timespec wait{0, 1000000};
        if (rate != 0 && now < end) {
            const std::chrono::duration<double> next(static_cast<double>(sent) / rate);
            const auto left = start + std::chrono::duration_cast<std::chrono::nanoseconds>(next) - Clock::now();
            wait.tv_nsec = std::clamp<long>(std::chrono::nanoseconds(left).count(), 0, 1000000);
        }
        if (ppoll(sockets.data(), sockets.size(), &wait, nullptr) <= 0) continue;
        for (const pollfd& one : sockets) {
            ssize_t size = 0;
            while ((one.revents & POLLIN) != 0 && receive(one.fd, answer, size)) {
                last = Clock::now();
                Time& at = asked[static_cast<size_t>(answer[0]) << 8 | answer[1]];
                if (at == Time()) continue;
                taken.push_back(Micros(last - at).count());
                if (!isRight(answer)) ++wrong;
                at = Time();
                if (open > 0) --open;
            }
        }
    }
    std::sort(taken.begin(), taken.end());
    const auto at = [&](double share) {
        return taken.empty() ? 0 : taken[static_cast<size_t>(static_cast<double>(taken.size() - 1) * share)];
    };
    std::printf(
        "{\"sent\": %zu, \"answered\": %zu, \"wrong\": %zu, \"rate\": %.0f, \"p50_us\": %.0f, \"p99_us\": %.0f}\n",
        sent, taken.size(), wrong, static_cast<double>(taken.size()) / seconds, at(0.5), at(0.99));
    return 0;
}

int flood(const char* server, double seconds, const char* name) {
    constexpr size_t kBatch = 64;
    const int fd = connectTo(server);
    std::minstd_rand random;
    std::vector<uint8_t> packet = name != nullptr ? queryFor(name) : std::vector<uint8_t>(40);
    if (name == nullptr)
        std::generate(packet.begin(), packet.end(), [&] { return static_cast<uint8_t>(random() >> 8); });
    std::array<mmsghdr, kBatch> batch{};
    iovec part{packet.data(), packet.size()};
    for (mmsghdr& one : batch) {
        one.msg_hdr.msg_iov = &part;
        one.msg_hdr.msg_iovlen = 1;
    }
    size_t sent = 0;
    Answer answer;
    const Time start = Clock::now();
    while (std::chrono::duration<double>(Clock::now() - start).count() < seconds) {
        const int count = sendmmsg(fd, batch.data(), kBatch, 0);
        if (count > 0) sent += static_cast<size_t>(count);
        while (recv(fd, answer.data(), answer.size(), 0) >= 0) {
        }
    }
    std::printf("{\"sent\": %zu, \"rate\": %.0f}\n", sent, static_cast<double>(sent) / seconds);
    return 0;
}

int await(const char* server) {
    pollfd wait{connectTo(server), POLLIN, 0};
    size_t id = 0;
    for (std::string name; std::getline(std::cin, name);) {
        std::vector<uint8_t> query = queryFor(name);
        std::string found;
        for (const Time start = Clock::now(); found.empty() && Clock::now() - start < kPatience;) {
            setId(query, ++id);
            send(wait.fd, query.data(), query.size(), 0);
            const Time next = Clock::now() + std::chrono::milliseconds(1);
            const timespec pause{0, 1000000};
            while (Clock::now() < next) {
                if (ppoll(&wait, 1, &pause, nullptr) <= 0) break;
                Answer answer;
                ssize_t size = 0;
                if (!receive(wait.fd, answer, size) || !isRight(answer) || answer[3 + kHeader] == 0) continue;
                if (!std::equal(query.begin() + kHeader, query.end(), answer.begin() + kHeader)) continue;
                std::array<char, INET_ADDRSTRLEN> text{};
                inet_ntop(AF_INET, &answer[query.size() + kHeader], text.data(), text.size());
                const std::chrono::duration<double> now = Clock::now().time_since_epoch();
                found = " " + std::to_string(now.count()) + " " + text.data();
            }
        }
        std::cout << name << found << std::endl;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    prctl(PR_SET_TIMERSLACK, 1);
    const std::string what = argc > 2 ? argv[1] : "";
    if (what == "ask" && argc == 6) return ask(argv[2], argv[3], std::atof(argv[4]), std::atof(argv[5]));
    if (what == "flood" && (argc == 4 || argc == 5))
        return flood(argv[2], std::atof(argv[3]), argc == 5 ? argv[4] : nullptr);
    if (what == "await" && argc == 3) return await(argv[2]);
    std::fputs("usage: dns_load ask SERVER NAME SECONDS RATE | flood SERVER SECONDS [NAME] | await SERVER\n", stderr);
    return 2;
}
