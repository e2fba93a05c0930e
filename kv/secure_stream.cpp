#include "kv/secure_stream.h"

#include <sodium.h>

#include "kv/wire.h"

namespace weft::kv {

namespace {

constexpr size_t kLengthBytes = 4;
constexpr size_t kHelloBytes = Keyring::kOverhead + 32 + 16 + 1;  // nonce, node id, purpose
static_assert(SecureStream::kTagBytes == crypto_aead_xchacha20poly1305_ietf_ABYTES);

std::array<uint8_t, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES> frameNonce(uint64_t number) {
    std::array<uint8_t, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES> nonce{};
    for (size_t i = 0; i < 8; ++i) nonce[nonce.size() - 1 - i] = static_cast<uint8_t>(number >> (8 * i));
    return nonce;
}

}  // namespace

SecureStream::SecureStream(bool initiator, const Keyring& keyring, Random& random, const std::string& cluster,
                           const NodeId& self, Send send)
    : initiator_(initiator),
      keyring_(&keyring),
      random_(&random),
      cluster_(cluster),
      self_(self),
      send_(std::move(send)) {
    random_->fill(ours_);
}

SecureStream SecureStream::initiate(const Keyring& keyring, Random& random, const std::string& cluster,
                                    const NodeId& self, StreamPurpose purpose, Send send) {
    SecureStream stream(true, keyring, random, cluster, self, std::move(send));
    stream.purpose_ = purpose;
    stream.sendHello();
    return stream;
}

SecureStream SecureStream::accept(const Keyring& keyring, Random& random, const std::string& cluster,
                                  const NodeId& self, Send send) {
    return {false, keyring, random, cluster, self, std::move(send)};
}

Bytes SecureStream::helloContext(bool reply) const {
    Writer context;
    context.text8(reply ? "weft reply" : "weft hello");
    context.text8(cluster_);
    if (reply) context.bytes(initiator_ ? ours_ : theirs_);  // answers this hello and no other
    return std::move(context).take();
}

void SecureStream::sendHello() {
    Writer hello;
    hello.bytes(ours_);
    hello.id(self_);
    hello.u8(static_cast<uint8_t>(purpose_));
    Writer out;
    out.u32(kHelloBytes);
    Bytes bytes = std::move(out).take();
    // The key may change between hello and answer: the initiator's choice holds for the whole stream.
    if (!helloKey_) helloKey_ = keyring_->keys().front();
    Keyring::sealWith(*helloKey_, helloKey_->id(), *random_, helloContext(!initiator_), hello.view(), bytes);
    send_(bytes);
}

bool SecureStream::receiveHello(BytesView box) {
    Bytes plain;
    KeyId id = 0;
    if (keyring_->open(box, helloContext(initiator_), plain, &id) != Keyring::Opened::Ok) return false;
    Reader in(plain);
    theirs_ = in.array<32>();
    peer_ = in.id();
    const auto purpose = static_cast<StreamPurpose>(in.u8());
    if (!in.done() || (purpose != StreamPurpose::Probe && purpose != StreamPurpose::Sync)) return false;
    if (initiator_) {
        if (id != helloKey_->id() || purpose != purpose_) return false;
    } else {
        const Key* key = keyring_->find(id);
        if (key == nullptr) return false;
        helloKey_ = *key;
        purpose_ = purpose;
        sendHello();
    }
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
    input.id(initiator_ ? self_ : peer_);
    input.id(initiator_ ? peer_ : self_);
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
                established_ ? length >= kTagBytes && length <= kMaxFrameBytes + kTagBytes : length == kHelloBytes;
            if (!fits) return false;
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
        const auto nonce = frameNonce(received_++);
        if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain.data(), nullptr, nullptr, body.data(), body.size(),
                                                       whole.data(), kLengthBytes, nonce.data(),
                                                       receiveKey_.data()) != 0) {
            return false;
        }
        if (!frame(plain)) return false;
    }
    return true;
}

}  // namespace weft::kv
