#include "kv/secure_stream.h"

#include <sodium.h>

#include "kv/wire.h"

namespace weft::kv {

namespace {

constexpr size_t kLengthBytes = 4;
constexpr size_t kHello1Bytes = Keyring::kOverhead + 32 + 16 + 1;  // nonce, node id, purpose
constexpr size_t kHello2Bytes = kHello1Bytes + 4 + 16;             // and epoch, receiver
static_assert(SecureStream::kTagBytes == crypto_aead_xchacha20poly1305_ietf_ABYTES);

std::array<uint8_t, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES> frameNonce(uint64_t number) {
    std::array<uint8_t, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES> nonce{};
    for (size_t i = 0; i < 8; ++i) nonce[nonce.size() - 1 - i] = static_cast<uint8_t>(number >> (8 * i));
    return nonce;
}

}  // namespace

SecureStream::SecureStream(bool initiator, const Keyring& keyring, Random& random, const std::string& cluster,
                           const Self& self, Send send)
    : initiator_(initiator),
      keyring_(&keyring),
      random_(&random),
      cluster_(cluster),
      self_(self),
      send_(std::move(send)) {
    random_->fill(ours_);
}

SecureStream SecureStream::initiate(const Keyring& keyring, Random& random, const std::string& cluster,
                                    const Self& self, StreamPurpose purpose, Wire wire, const NodeId& receiver,
                                    Send send) {
    SecureStream stream(true, keyring, random, cluster, self, std::move(send));
    stream.purpose_ = purpose;
    stream.wire_ = wire;
    stream.sendHello(receiver);
    return stream;
}

SecureStream SecureStream::accept(const Keyring& keyring, Random& random, const std::string& cluster, const Self& self,
                                  Policy policy, Send send) {
    SecureStream stream(false, keyring, random, cluster, self, std::move(send));
    stream.policy_ = std::move(policy);
    return stream;
}

Bytes SecureStream::helloContext(bool reply) const {
    Writer context;
    context.text8(reply ? "weft reply" : "weft hello");
    context.text8(cluster_);
    if (reply) context.bytes(initiator_ ? ours_ : theirs_);  // answers this hello and no other
    return std::move(context).take();
}

bool SecureStream::isHelloSize(size_t length) const {
    if (initiator_) return length == (wire_ == Wire::One ? kHello1Bytes : kHello2Bytes);
    return length == kHello1Bytes || (length == kHello2Bytes && policy_.wire2);
}

void SecureStream::sendHello(const NodeId& receiver) {
    Writer hello;
    hello.bytes(ours_);
    hello.id(self_.id);
    hello.u8(static_cast<uint8_t>(purpose_));
    if (wire_ == Wire::Two) {
        hello.u32(self_.epoch);
        hello.id(receiver);
    }
    Writer out;
    out.u32(static_cast<uint32_t>(Keyring::kOverhead + hello.size()));
    Bytes bytes = std::move(out).take();
    // The key may change between hello and answer: the initiator's choice holds for the whole stream.
    if (!helloKey_) helloKey_ = keyring_->keys().front();
    Keyring::sealWith(*helloKey_, helloKey_->id(), wire_, *random_, helloContext(!initiator_), hello.view(), bytes);
    send_(bytes);
}

bool SecureStream::receiveHello(BytesView box) {
    refusal_ = Refusal::Stranger;
    const auto wire = Keyring::wireOf(box);
    if (!wire || box.size() != (*wire == Wire::One ? kHello1Bytes : kHello2Bytes)) return false;
    Bytes plain;
    KeyId id = 0;
    if (keyring_->open(box, helloContext(initiator_), plain, &id) != Keyring::Opened::Ok) return false;
    Reader in(plain);
    theirs_ = in.array<32>();
    peer_ = in.id();
    const auto purpose = static_cast<StreamPurpose>(in.u8());
    if (wire == Wire::Two) peerEpoch_ = in.u32();
    const NodeId receiver = wire == Wire::Two ? in.id() : NodeId{};
    if (!in.done() || (purpose != StreamPurpose::Probe && purpose != StreamPurpose::Sync)) return false;
    if (initiator_) {
        if (id != helloKey_->id() || purpose != purpose_ || (wire == Wire::Two && receiver != self_.id)) return false;
    } else {
        const Key* key = keyring_->find(id);
        if (key == nullptr) return false;
        if (wire == Wire::One && !policy_.wire1) {
            refusal_ = Refusal::OldWire;
            return false;
        }
        if ((receiver != NodeId{} && receiver != self_.id) || !policy_.isNew(theirs_)) {
            refusal_ = Refusal::Replayed;
            return false;
        }
        helloKey_ = *key;
        purpose_ = purpose;
        wire_ = *wire;
        sendHello(peer_);
    }
    refusal_ = Refusal::None;
    establish(*helloKey_);
    helloKey_.reset();
    return true;
}

void SecureStream::establish(const Key& key) {
    sendKey_ = deriveKey(key, initiator_);
    receiveKey_ = deriveKey(key, !initiator_);
    established_ = true;
}

SecureStream::SessionKey SecureStream::deriveKey(const Key& key, bool fromInitiator) const {
    Writer input;
    input.text8("weft stream key");
    input.text8(cluster_);
    input.u8(fromInitiator ? 1 : 0);
    input.u8(static_cast<uint8_t>(purpose_));
    input.bytes(initiator_ ? ours_ : theirs_);
    input.bytes(initiator_ ? theirs_ : ours_);
    input.id(initiator_ ? self_.id : peer_);
    input.id(initiator_ ? peer_ : self_.id);
    SessionKey derived;
    crypto_generichash(derived.data(), derived.size(), input.view().data(), input.size(), key.bytes.data(),
                       key.bytes.size());
    return derived;
}

void SecureStream::send(BytesView content) {
    Writer header;
    header.u32(static_cast<uint32_t>(content.size() + kTagBytes));
    Bytes frame = std::move(header).take();
    frame.resize(kLengthBytes + content.size() + kTagBytes);
    const auto nonce = frameNonce(sent_++);
    crypto_aead_xchacha20poly1305_ietf_encrypt(frame.data() + kLengthBytes, nullptr, content.data(), content.size(),
                                               frame.data(), kLengthBytes, nullptr, nonce.data(), sendKey_.data());
    send_(frame);
}

bool SecureStream::receive(BytesView bytes, const std::function<bool(BytesView)>& frame) {
    while (!bytes.empty() || buffer_.size() >= kLengthBytes) {
        // First the length, then exactly that much: nothing beyond one frame is ever held.
        size_t wanted = kLengthBytes;
        if (buffer_.size() >= kLengthBytes) {
            const size_t length = Reader(buffer_).u32();
            const bool fits =
                established_ ? length >= kTagBytes && length <= kMaxFrameBytes + kTagBytes : isHelloSize(length);
            if (!fits) {
                if (!established_) refusal_ = Refusal::Stranger;
                return false;
            }
            wanted += length;
        }
        const size_t taken = std::min(wanted - buffer_.size(), bytes.size());
        buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
        bytes = bytes.subspan(taken);
        if (buffer_.size() < wanted) return true;
        if (wanted == kLengthBytes) continue;

        const Bytes whole = std::exchange(buffer_, {});
        const BytesView body = BytesView(whole).subspan(kLengthBytes);
        if (!established_) {
            if (!receiveHello(body)) return false;
            continue;
        }
        Bytes plain(body.size() - kTagBytes);
        const auto nonce = frameNonce(received_);
        if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain.data(), nullptr, nullptr, body.data(), body.size(),
                                                       whole.data(), kLengthBytes, nonce.data(),
                                                       receiveKey_.data()) != 0) {
            return false;
        }
        ++received_;
        if (!frame(plain)) return false;
    }
    return true;
}

}  // namespace weft::kv
