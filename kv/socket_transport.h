// SocketTransport: UDP and TCP on one port of one address, behind the Node's Transport.
//
// One thread: run() waits for what happens and hands it to the Node. Any thread may wake() it.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "kv/transport.h"

namespace weft::kv {

class Node;

class SocketTransport final : public Transport {
public:
    // Without an address no socket is opened: what is sent is lost, and only wake() wakes.
    static Result<std::unique_ptr<SocketTransport>> open(const Address* bind);
    ~SocketTransport() override;

    // Waits until something arrives, wake() is called or the deadline comes, and reports it to `node`.
    void run(Node& node, std::chrono::steady_clock::duration patience);
    void wake() const;

    // The port in use, also where 0 was asked for.
    [[nodiscard]] uint16_t port() const { return port_; }

    void sendPacket(const Address& to, BytesView bytes) override;
    StreamId connect(const Address& to) override;
    void sendStream(StreamId stream, BytesView bytes) override;
    void closeStream(StreamId stream) override;

private:
    struct Stream {
        UniqueFd fd;
        Bytes unsent;
        bool connecting = false;
        bool closing = false;  // the node is done with it; what is queued still goes out
        std::chrono::steady_clock::time_point closeBy{};
    };

    SocketTransport() = default;
    Result<void> listen(const Address& bind);
    void watch(int fd, uint64_t token, uint32_t events, bool add) const;
    void receivePackets(Node& node);
    void acceptStreams(Node& node);
    void pauseAccept(bool pause);
    void limitUnsent();
    void limitClosing();
    void onStream(Node& node, StreamId id, uint32_t events);
    // False when the stream broke.
    bool flush(StreamId id, Stream& stream);
    void end(StreamId id);

    UniqueFd epoll_;
    UniqueFd wake_;
    UniqueFd udp_;
    UniqueFd tcp_;
    uint16_t port_ = 0;
    StreamId nextStream_ = 16;  // below are the tokens of the other descriptors
    std::unordered_map<StreamId, Stream> streams_;
    std::deque<StreamId> broken_;  // to be reported from run()
    bool acceptPaused_ = false;    // no descriptor was left; connections wait in the kernel's queue
    std::chrono::steady_clock::time_point resumeAccept_{};
    Bytes buffer_;
};

}  // namespace weft::kv
