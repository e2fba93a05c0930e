// SecureStream: frames over a reliable stream, encrypted and authenticated. Holds no socket: bytes go in and out.
//
// Handshake: each side sends one sealed box (keyring.h) with a fresh nonce; both derive a key for each direction from
// the cluster key, both nonces and both identities. Frames are u32 length | ciphertext | tag, numbered implicitly from
// zero. A recorded hello opens again, so it grants nothing: whoever connected is proven by its first frame, which needs
// our nonce. In wire 2 a hello also names its receiver, if the sender knows whom it will meet.
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
    using Nonce = std::array<uint8_t, 32>;

    struct Self {
        NodeId id;
        uint32_t epoch = 0;
    };
    // Of the side that accepts.
    struct Policy {
        bool wire1 = false;
        bool wire2 = true;
        std::function<bool(const Nonce&)> isNew;  // false: a hello with this nonce came before
    };
    enum class Refusal : uint8_t {
        None,
        Stranger,  // no box of ours, or broken
        Replayed,  // a hello that came before, or is for another receiver
        OldWire,   // sound, but of wire 1, which is not spoken here any more
    };

    // The side that connected. Sends its hello at once. The ring must hold a key. `receiver` may be zero: whoever
    // answers at the address, as with a seed.
    static SecureStream initiate(const Keyring& keyring, Random& random, const std::string& cluster, const Self& self,
                                 StreamPurpose purpose, Wire wire, const NodeId& receiver, Send send);
    // The side that accepted. Silent until a hello opens.
    static SecureStream accept(const Keyring& keyring, Random& random, const std::string& cluster, const Self& self,
                               Policy policy, Send send);

    // Takes what arrived. Calls `frame` for each whole frame; it may send. False: the peer is a stranger, or broken;
    // close the stream. Buffers at most one frame, and before the handshake at most one hello.
    bool receive(BytesView bytes, const std::function<bool(BytesView)>& frame);
    // Frames up to kMaxFrameBytes, once established.
    void send(BytesView content);

    [[nodiscard]] bool established() const { return established_; }  // keys stand
    // The peer holds the cluster key and is here now. Until then it may be a recording.
    [[nodiscard]] bool proven() const { return initiator_ ? established_ : received_ > 0; }
    [[nodiscard]] Refusal refusal() const { return refusal_; }
    [[nodiscard]] Wire wire() const { return wire_; }                 // once established
    [[nodiscard]] const NodeId& peer() const { return peer_; }        // once established
    [[nodiscard]] uint32_t peerEpoch() const { return peerEpoch_; }   // once established, wire 2
    [[nodiscard]] StreamPurpose purpose() const { return purpose_; }  // once established
    [[nodiscard]] const Nonce& ourNonce() const { return ours_; }
    [[nodiscard]] const Nonce& theirNonce() const { return theirs_; }  // once established

private:
    using SessionKey = std::array<uint8_t, 32>;

    SecureStream(bool initiator, const Keyring& keyring, Random& random, const std::string& cluster, const Self& self,
                 Send send);
    void sendHello(const NodeId& receiver);
    bool receiveHello(BytesView box);
    [[nodiscard]] bool isHelloSize(size_t length) const;
    [[nodiscard]] Bytes helloContext(bool reply) const;
    void establish(const Key& key);
    [[nodiscard]] SessionKey deriveKey(const Key& key, bool fromInitiator) const;

    bool initiator_;
    const Keyring* keyring_;
    Random* random_;
    std::string cluster_;
    Self self_;
    NodeId peer_;
    uint32_t peerEpoch_ = 0;
    Policy policy_;
    Send send_;
    StreamPurpose purpose_ = StreamPurpose::Sync;
    Wire wire_ = Wire::Two;
    Nonce ours_{}, theirs_{};
    std::optional<Key> helloKey_;  // the initiator's choice; the answer must use the same
    bool established_ = false;
    Refusal refusal_ = Refusal::None;
    SessionKey sendKey_{}, receiveKey_{};
    uint64_t sent_ = 0, received_ = 0;
    Bytes buffer_;
};

}  // namespace weft::kv
