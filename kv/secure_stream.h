// SecureStream: frames over a reliable stream, encrypted and authenticated. Holds no socket: bytes go in and out.
//
// Handshake: each side sends one sealed box (keyring.h) with a fresh nonce; both derive a key for each direction from
// the cluster key, both nonces and both identities. A recorded stream played back fails at its first frame, because the
// other side's nonce is new. Frames are u32 length | ciphertext | tag, numbered implicitly from zero.
#pragma once

#include <functional>
#include <optional>

#include "kv/keyring.h"
#include "kv/types.h"

namespace weft::kv {

enum class StreamPurpose : uint8_t {
    Probe = 1,  // the handshake is the answer
    Sync = 2,   // sync.h
};

class SecureStream {
public:
    static constexpr size_t kMaxFrameBytes = size_t{64} * 1024;  // of content
    static constexpr size_t kTagBytes = 16;

    using Send = std::function<void(BytesView)>;

    // The side that connected. Sends its hello at once. The ring must hold a key.
    static SecureStream initiate(const Keyring& keyring, Random& random, const std::string& cluster, const NodeId& self,
                                 StreamPurpose purpose, Send send);
    // The side that accepted. Silent until a hello opens.
    static SecureStream accept(const Keyring& keyring, Random& random, const std::string& cluster, const NodeId& self,
                               Send send);

    // Takes what arrived. Calls `frame` for each whole frame; it may send. False: the peer is a stranger, or broken;
    // close the stream. Buffers at most one frame, and before the handshake at most one hello.
    bool receive(BytesView bytes, const std::function<bool(BytesView)>& frame);
    // Frames up to kMaxFrameBytes, once established.
    void send(BytesView content);

    [[nodiscard]] bool established() const { return established_; }
    [[nodiscard]] const NodeId& peer() const { return peer_; }        // once established
    [[nodiscard]] StreamPurpose purpose() const { return purpose_; }  // once established

private:
    using Nonce = std::array<uint8_t, 32>;
    using SessionKey = std::array<uint8_t, 32>;

    SecureStream(bool initiator, const Keyring& keyring, Random& random, const std::string& cluster, const NodeId& self,
                 Send send);
    void sendHello();
    bool receiveHello(BytesView box);
    [[nodiscard]] Bytes helloContext(bool reply) const;
    void establish(const Key& key);
    [[nodiscard]] SessionKey deriveKey(const Key& key, bool fromInitiator) const;

    bool initiator_;
    const Keyring* keyring_;
    Random* random_;
    std::string cluster_;
    NodeId self_, peer_;
    Send send_;
    StreamPurpose purpose_ = StreamPurpose::Sync;
    Nonce ours_{}, theirs_{};
    std::optional<Key> helloKey_;  // the initiator's choice; the answer must use the same
    bool established_ = false;
    SessionKey sendKey_{}, receiveKey_{};
    uint64_t sent_ = 0, received_ = 0;
    Bytes buffer_;
};

}  // namespace weft::kv
