#include "firewall/nft_context.h"

#include <nftables/libnftables.h>

#include <mutex>
#include <string_view>

namespace weft::firewall {

namespace {

constexpr unsigned kOutput =
    NFT_CTX_OUTPUT_NUMERIC_ALL | NFT_CTX_OUTPUT_STATELESS | NFT_CTX_OUTPUT_HANDLE | NFT_CTX_OUTPUT_TERSE;

// libnftables reports in words only; its kernel errors end in strerror's.
Error errorOf(std::string_view text) {
    auto code = ErrorCode::Kernel;
    if (text.find("No such file or directory") != std::string_view::npos) code = ErrorCode::NotFound;
    if (text.find("File exists") != std::string_view::npos) code = ErrorCode::AlreadyExists;
    if (text.find("Operation not supported") != std::string_view::npos ||
        text.find("Protocol not supported") != std::string_view::npos) {
        code = ErrorCode::Unsupported;
    }
    const std::string_view firstLine = text.substr(0, text.find('\n'));
    return makeError(code, "nft: " + std::string(firstLine));
}

}  // namespace

void NftContext::Free::operator()(nft_ctx* context) const {
    nft_ctx_free(context);
}

Result<NftContext> NftContext::open() {
    std::unique_ptr<nft_ctx, Free> context(nft_ctx_new(NFT_CTX_DEFAULT));
    if (!context || nft_ctx_buffer_output(context.get()) != 0 || nft_ctx_buffer_error(context.get()) != 0) {
        return makeError(ErrorCode::Internal, "nft: libnftables gave no context");
    }
    nft_ctx_output_set_flags(context.get(), kOutput);
    NftContext opened(std::move(context));
    // Cheapest of all: even `list tables` fetches every element (libnftables 1.0.6).
    WEFT_TRY(opened.run("list chains inet").within("this kernel's nf_tables"));
    return opened;
}

Result<std::string> NftContext::run(const std::string& commands) {
    // All contexts share libnftables' list of links, which it reads for each "iif" and frees at the end (1.0.6).
    static std::mutex links;
    const std::lock_guard lock(links);
    const int failed = nft_run_cmd_from_buffer(context_.get(), commands.c_str());
    // Both buffers are emptied by reading them.
    const std::string output = nft_ctx_get_output_buffer(context_.get());
    const std::string errors = nft_ctx_get_error_buffer(context_.get());
    if (failed != 0) return errorOf(errors);
    return output;
}

// `list table` fetches all elements of all tables, and only then leaves them out (libnftables 1.0.6): seconds with
// thousands of published ports. `list ruleset` does not fetch them.
Result<std::string> NftContext::list(const std::string& table) {
    const std::string family = table.substr(0, table.find(' '));
    WEFT_ASSIGN(const std::string ruleset, run("list ruleset " + family));
    const std::string head = "table " + table + " {";
    size_t begin = ruleset.starts_with(head) ? 0 : ruleset.find('\n' + head);
    if (begin == std::string::npos) return makeError(ErrorCode::NotFound, "nft: no table " + table);
    if (begin != 0) ++begin;
    const size_t end = ruleset.find("\n}", begin);  // what is inside is indented
    return ruleset.substr(begin, end == std::string::npos ? end : end + 3 - begin);
}

}  // namespace weft::firewall
