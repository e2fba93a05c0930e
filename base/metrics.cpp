#include "base/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cctype>
#include <cmath>
#include <iterator>
#include <variant>

namespace weft {
namespace {

using Series = std::variant<std::unique_ptr<Counter>, std::unique_ptr<Gauge>, std::unique_ptr<Histogram>>;

[[maybe_unused]] bool isName(std::string_view name) {
    if (name.empty() || std::isdigit(static_cast<unsigned char>(name.front())) != 0) return false;
    return std::all_of(name.begin(), name.end(),
                       [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == ':'; });
}

// Label values escape the quote too, help texts do not.
std::string escaped(std::string_view text, bool quotes) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') {
            out += "\\n";
            continue;
        }
        if (c == '\\' || (quotes && c == '"')) out += '\\';
        out += c;
    }
    return out;
}

std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
    return fmt::format("{}", value);
}

void appendSample(std::string& out, std::string_view name, std::string_view suffix, const MetricLabels& labels,
                  std::string_view value, std::string_view bound = {}) {
    out += name;
    out += suffix;
    if (!labels.empty() || !bound.empty()) {
        std::string_view separator = "{";
        for (const auto& [key, text] : labels) {
            fmt::format_to(std::back_inserter(out), "{}{}=\"{}\"", separator, key, escaped(text, true));
            separator = ",";
        }
        if (!bound.empty()) fmt::format_to(std::back_inserter(out), "{}le=\"{}\"", separator, bound);
        out += '}';
    }
    fmt::format_to(std::back_inserter(out), " {}\n", value);
}

}  // namespace

void Histogram::observe(double seconds) {
    const auto* bound = std::lower_bound(std::begin(kLatencyBounds), std::end(kLatencyBounds), seconds);
    buckets_[static_cast<size_t>(bound - std::begin(kLatencyBounds))].fetch_add(1, std::memory_order_relaxed);
    sumNanoseconds_.fetch_add(static_cast<uint64_t>(std::max(seconds, 0.0) * 1e9), std::memory_order_relaxed);
}

uint64_t Histogram::count() const {
    uint64_t total = 0;
    for (const auto& bucket : buckets_) total += bucket.load(std::memory_order_relaxed);
    return total;
}

struct Metrics::Family {
    std::string help;
    std::string kind;
    std::map<MetricLabels, Series> series;
    std::function<std::vector<Sample>()> collect;

    template <typename T>
    T& get(const MetricLabels& labels) {
        auto found = series.find(labels);
        if (found == series.end()) {
            assert(std::all_of(labels.begin(), labels.end(), [](const auto& label) { return isName(label.first); }));
            found = series.emplace(labels, std::make_unique<T>()).first;
        }
        return *std::get<std::unique_ptr<T>>(found->second);
    }
};

Metrics::Metrics() = default;
Metrics::~Metrics() = default;

Metrics::Family& Metrics::family(std::string_view name, std::string_view help, std::string_view kind) {
    auto found = families_.find(name);
    if (found == families_.end()) {
        assert(isName(name));
        auto made = std::make_unique<Family>();
        made->help = help;
        made->kind = kind;
        found = families_.emplace(std::string(name), std::move(made)).first;
    }
    assert(found->second->kind == kind);
    return *found->second;
}

Counter& Metrics::counter(std::string_view name, std::string_view help, const MetricLabels& labels) {
    const std::lock_guard lock(mutex_);
    return family(name, help, "counter").get<Counter>(labels);
}

Gauge& Metrics::gauge(std::string_view name, std::string_view help, const MetricLabels& labels) {
    const std::lock_guard lock(mutex_);
    return family(name, help, "gauge").get<Gauge>(labels);
}

Histogram& Metrics::histogram(std::string_view name, std::string_view help, const MetricLabels& labels) {
    const std::lock_guard lock(mutex_);
    return family(name, help, "histogram").get<Histogram>(labels);
}

void Metrics::gaugesFrom(std::string_view name, std::string_view help, std::function<std::vector<Sample>()> collect) {
    const std::lock_guard lock(mutex_);
    family(name, help, "gauge").collect = std::move(collect);
}

std::string Metrics::render() const {
    // Collectors take locks of their own, and their owners may count while they hold them: never call one under ours.
    std::vector<std::pair<std::string, std::function<std::vector<Sample>()>>> collectors;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [name, family] : families_) {
            if (family->collect) collectors.emplace_back(name, family->collect);
        }
    }
    std::map<std::string, std::vector<Sample>, std::less<>> collected;
    for (const auto& [name, collect] : collectors) {
        auto& samples = collected[name];
        samples = collect();
        std::sort(samples.begin(), samples.end(), [](const auto& a, const auto& b) { return a.labels < b.labels; });
    }

    std::string out;
    const std::lock_guard lock(mutex_);
    for (const auto& [name, family] : families_) {
        fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", name, escaped(family->help, false),
                       name, family->kind);
        for (const auto& sample : collected[name]) appendSample(out, name, "", sample.labels, number(sample.value));
        for (const auto& [labels, series] : family->series) {
            if (const auto* counter = std::get_if<std::unique_ptr<Counter>>(&series)) {
                appendSample(out, name, "", labels, fmt::format("{}", (*counter)->value()));
            } else if (const auto* gauge = std::get_if<std::unique_ptr<Gauge>>(&series)) {
                appendSample(out, name, "", labels, number((*gauge)->value()));
            } else {
                const auto& histogram = *std::get<std::unique_ptr<Histogram>>(series);
                uint64_t total = 0;
                for (size_t i = 0; i <= Histogram::kBounds; ++i) {
                    total += histogram.buckets_[i].load(std::memory_order_relaxed);
                    appendSample(out, name, "_bucket", labels, fmt::format("{}", total),
                                 i < Histogram::kBounds ? fmt::format("{}", kLatencyBounds[i]) : "+Inf");
                }
                appendSample(out, name, "_sum", labels, number(histogram.sum()));
                appendSample(out, name, "_count", labels, fmt::format("{}", total));
            }
        }
    }
    return out;
}

}  // namespace weft
