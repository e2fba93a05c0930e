// Opens and closes TCP connections one after another and prints how many a second the path takes.
//
//     connect_rate ADDRESS PORT SECONDS
//     connect_rate serve PORT            the other end: accepts and closes
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int serve(uint16_t port) {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = htons(port);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0 ||
        listen(listener, SOMAXCONN) != 0) {
        std::perror("serve");
        return 1;
    }
    for (;;) {
        const int fd = accept(listener, nullptr, nullptr);
        if (fd >= 0) close(fd);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 3 && std::strcmp(argv[1], "serve") == 0) return serve(static_cast<uint16_t>(std::atoi(argv[2])));
    sockaddr_in server{};
    server.sin_family = AF_INET;
    if (argc != 4 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) {
        std::fputs("usage: connect_rate ADDRESS PORT SECONDS | serve PORT\n", stderr);
        return 2;
    }
    server.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[2])));
    const auto start = std::chrono::steady_clock::now();
    const auto end = start + std::chrono::duration<double>(std::atof(argv[3]));
    long made = 0;
    while (std::chrono::steady_clock::now() < end) {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof server) != 0) {
            std::perror("connect");
            return 1;
        }
        // A reset instead of a close leaves no TIME_WAIT behind, so ephemeral ports do not run out.
        const linger reset{1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        ++made;
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::printf("%.0f\n", static_cast<double>(made) / taken.count());
}
