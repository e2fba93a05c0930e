// Streams: the first input byte picks who sends the rest. Even: a stranger, before the handshake. Odd: a member that
// finished it and then sends the rest as frames (u16 length each), to a node that knows two members and some rows.
#include <memory>

#include "kv/identity.h"
#include "kv/node.h"
#include "kv/secure_stream.h"
#include "kv/wire.h"

using namespace weft;
using namespace weft::kv;

namespace {

class NoStorage final : public Storage {
public:
    void save(const Row&, Done done) override { done({}); }
    void saveEpoch(uint32_t) override {}
    void saveDoubt(bool, Done) override {}
    void saveMembers(std::vector<MemberRecord>) override {}
};

class Catch final : public Transport {
public:
    void sendPacket(const Address&, BytesView) override {}
    StreamId connect(const Address&) override { return ++last_; }
    void sendStream(StreamId, BytesView bytes) override { sent.insert(sent.end(), bytes.begin(), bytes.end()); }
    void closeStream(StreamId) override {}
    Bytes sent;

private:
    StreamId last_ = 1000;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    Keyring ring;
    static_cast<void>(ring.add(Key{{1}}));
    static const Ed25519Signer signer({1});
    ManualClock clock;
    SystemRandom random;
    Catch transport;
    NoStorage storage;
    Node node({}, {}, ring, signer, clock, random, transport, storage);
    for (char key = 'a'; key < 'e'; ++key) node.put(std::string(1, key), "value", [](const Result<void>&) {});
    node.onStreamAccepted(1, {});

    BytesView input(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        node.onStreamData(1, input);
        return 0;
    }
    SecureStream peer = SecureStream::initiate(ring, random, "weft", {NodeId{{7}}}, StreamPurpose::Sync, Wire::Two, {},
                                               [&](BytesView bytes) { node.onStreamData(1, bytes); });
    peer.receive(transport.sent, [](BytesView) { return true; });
    while (input.size() >= 2) {
        const size_t length = std::min<size_t>(static_cast<size_t>(input[0]) << 8 | input[1], input.size() - 2);
        peer.send(input.subspan(2, length));
        input = input.subspan(2 + length);
    }
    return 0;
}
