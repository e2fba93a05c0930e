#include "ctl/graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "ctl/table.h"

namespace weft::ctl {
namespace {

using Json = nlohmann::json;

struct Host {
    std::string name;
    std::string address;
    std::string state;
    bool self = false;
    std::string tunnel;  // as probes found it; empty: not examined

    [[nodiscard]] bool gone() const { return state != "alive" && state != "suspect"; }
    [[nodiscard]] std::string standing() const {
        if (self) return "this host";
        return tunnel.empty() ? state : state + ", tunnel " + tunnel;
    }
};

struct Container {
    std::string host;
    std::string name;
    std::vector<std::string> addresses;
};

struct Network {
    std::string name;
    uint32_t vni = 0;
    std::vector<std::string> subnets;
    std::string conflict;
    std::vector<Container> containers;

    [[nodiscard]] std::vector<const Container*> on(const std::string& host) const {
        std::vector<const Container*> there;
        for (const Container& container : containers) {
            if (container.host == host) there.push_back(&container);
        }
        return there;
    }
};

struct Graph {
    std::string cluster;
    std::vector<Host> hosts;
    std::vector<Network> networks;
};

std::vector<std::string> harmlessList(const Json& list) {
    std::vector<std::string> texts;
    for (const Json& item : list) texts.push_back(harmless(item.get<std::string>()));
    return texts;
}

Result<Graph> parseGraph(std::string_view text) {
    const Json json = Json::parse(text, nullptr, false);
    const auto word = [](const Json& object, const char* key) { return harmless(object.at(key).get<std::string>()); };
    try {
        Graph graph;
        graph.cluster = word(json, "cluster");
        for (const Json& host : json.at("hosts")) {
            std::string state = word(host, "state");
            if (state == "dead") state = harmless(host.value("presence", state));
            graph.hosts.push_back({word(host, "name"), word(host, "address"), std::move(state),
                                   host.at("self").get<bool>(), word(host, "tunnel")});
        }
        for (const Json& network : json.at("networks")) {
            Network& made = graph.networks.emplace_back();
            made.name = word(network, "name");
            made.vni = network.at("vni").get<uint32_t>();
            made.subnets = harmlessList(network.at("subnets"));
            made.conflict = word(network, "conflict");
            for (const Json& endpoint : network.at("endpoints")) {
                made.containers.push_back(
                    {word(endpoint, "host"), word(endpoint, "name"), harmlessList(endpoint.at("addresses"))});
            }
        }
        return graph;
    } catch (const Json::exception& error) {
        return makeError(ErrorCode::Corrupt, fmt::format("weftd's answer is not understood: {}", error.what()));
    }
}

Tone toneOf(const Host& host) {
    if (host.state == "alive") {
        const bool well =
            host.tunnel.empty() || host.tunnel == "good" || host.tunnel == "healed" || host.tunnel == "unknown";
        return well ? Tone::Good : Tone::Bad;
    }
    return host.state == "suspect" || host.state == "daemon away" ? Tone::Warning : Tone::Bad;
}

std::string joined(const std::vector<std::string>& words) {
    return fmt::format("{}", fmt::join(words, " "));
}

struct Twigs {
    std::string_view more, last, through, none, dot, cross;
};
constexpr Twigs kUnicode{"├─ ", "└─ ", "│  ", "   ", "●", "✗"};
constexpr Twigs kAscii{"+- ", "`- ", "|  ", "   ", "*", "x"};

class Tree {
public:
    Tree(const Graph& graph, bool unicode, bool colour)
        : twigs_(unicode ? kUnicode : kAscii), colour_(colour), text_(fmt::format("cluster {}\n", graph.cluster)) {
        hosts(graph);
        networks(graph);
    }

    [[nodiscard]] const std::string& text() const { return text_; }

private:
    void hosts(const Graph& graph) {
        for (const Host& host : graph.hosts) {
            const bool last = &host == &graph.hosts.back();
            const std::string mark(host.gone() ? twigs_.cross : twigs_.dot);
            line("", last,
                 fmt::format("{} {}  {}  {}", toned(mark, toneOf(host), colour_), host.name, host.address,
                             toned(host.standing(), host.self ? Tone::Plain : toneOf(host), colour_)));
            const std::string below(last ? twigs_.none : twigs_.through);
            std::vector<const Network*> here;
            for (const Network& network : graph.networks) {
                if (!network.on(host.name).empty()) here.push_back(&network);
            }
            for (const Network* network : here) {
                const bool lastNetwork = network == here.back();
                line(below, lastNetwork, network->name);
                const auto containers = network->on(host.name);
                for (const Container* container : containers) {
                    line(below + std::string(lastNetwork ? twigs_.none : twigs_.through),
                         container == containers.back(),
                         container->name + "  " + toned(joined(container->addresses), Tone::Faint, colour_));
                }
            }
        }
    }

    void networks(const Graph& graph) {
        if (!graph.networks.empty()) text_ += "\nnetworks\n";
        for (const Network& network : graph.networks) {
            const bool last = &network == &graph.networks.back();
            std::set<std::string> used;
            for (const Container& container : network.containers) used.insert(container.host);
            line("", last,
                 fmt::format("{}  VNI {}  {}  containers: {}, hosts with some: {}", network.name, network.vni,
                             joined(network.subnets), network.containers.size(), used.size()));
            if (!network.conflict.empty()) {
                line(std::string(last ? twigs_.none : twigs_.through), true,
                     toned(network.conflict, Tone::Bad, colour_));
            }
        }
    }

    void line(const std::string& before, bool last, const std::string& text) {
        text_ += fmt::format("{}{}{}\n", before, last ? twigs_.last : twigs_.more, text);
    }

    Twigs twigs_;
    bool colour_;
    std::string text_;
};

std::string dotText(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + "\"";
}

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '<') {
            out += "&lt;";
        } else if (c == '&') {
            out += "&amp;";
        } else {
            out += c;
        }
    }
    return out;
}

// --- SVG, in pixels ---

constexpr int kMargin = 16;
constexpr int kTitle = 40;
constexpr int kHostHead = 56;
constexpr int kBandHead = 26;
constexpr int kRow = 38;
constexpr int kPad = 10;
constexpr int kGap = 14;
constexpr int kCharacter = 8;  // more than a character of 13 px is wide
constexpr int kNarrow = 150;

// Bands of neighbours differ in light and dark, also to colour-blind eyes (Okabe and Ito, 2008).
constexpr std::array kHues{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};

constexpr std::string_view kStyle = R"(<style>
svg { color-scheme: light dark; font: 13px system-ui, sans-serif; background: var(--paper);
      --paper: #fff; --ink: #1b1f24; --faint: #57606a; --card: #f3f5f7; --line: #d0d7de; --bad: #b3261e; --good: #1a7f37; --warn: #9a6700; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #12161b; --ink: #e6edf3; --faint: #9aa4af; --card: #1c2229; --line: #343d47; --bad: #ff8078; --good: #4cc36b; --warn: #d9a520; } }
text { fill: var(--ink); } .faint { fill: var(--faint); } .bad { fill: var(--bad); } .good { fill: var(--good); }
.warn { fill: var(--warn); } .title, .name { font-weight: 600; } .host { fill: var(--card); stroke: var(--line); }
.chip { fill: var(--paper); stroke: var(--line); }
</style>
)";

int widthOf(std::string_view text) {
    return kPad * 2 + kCharacter * static_cast<int>(text.size());
}

std::string svgText(int x, int y, std::string_view kind, std::string_view text) {
    return fmt::format("<text x=\"{}\" y=\"{}\" class=\"{}\">{}</text>\n", x, y, kind, escaped(text));
}

std::string svgBox(int x, int y, int width, int height, std::string_view kind, std::string_view more = "") {
    return fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\" class=\"{}\"{}/>\n", x, y, width,
                       height, kind, more);
}

std::string_view kindOf(const Host& host) {
    switch (toneOf(host)) {
        case Tone::Good:
            return "good";
        case Tone::Warning:
            return "warn";
        default:
            return "bad";
    }
}

struct Column {
    int x = 0;
    int width = 0;
};

std::string headOf(const Network& network) {
    return fmt::format("VNI {}  {}", network.vni, joined(network.subnets));
}

std::vector<Column> columnsOf(const Graph& graph) {
    std::vector<Column> columns;
    int x = kMargin;
    for (const Host& host : graph.hosts) {
        int width = std::max({kNarrow, widthOf(host.name), widthOf(host.address + "  " + host.standing())});
        for (const Network& network : graph.networks) {
            for (const Container* container : network.on(host.name)) {
                width = std::max(
                    {width, widthOf(container->name) + 2 * kPad, widthOf(joined(container->addresses)) + 2 * kPad});
            }
        }
        columns.push_back({x, width});
        x += width + kGap;
    }
    return columns;
}

}  // namespace

Result<std::string> drawTree(std::string_view graph, bool unicode, bool colour) {
    WEFT_ASSIGN(const Graph parsed, parseGraph(graph));
    return Tree(parsed, unicode, colour).text();
}

Result<std::string> drawDot(std::string_view graph) {
    WEFT_ASSIGN(const Graph parsed, parseGraph(graph));
    std::string out =
        fmt::format("graph {} {{\n  layout=fdp; node [shape=box, style=rounded];\n", dotText(parsed.cluster));
    for (const Host& host : parsed.hosts) {
        out += fmt::format("  subgraph {} {{\n    label={}; style={};\n", dotText("cluster_" + host.name),
                           dotText(fmt::format("{} {} {}", host.name, host.address, host.standing())),
                           host.gone() ? "dashed" : "solid");
        // An empty subgraph is not drawn.
        out += fmt::format("    {} [style=invis, shape=point];\n", dotText("host/" + host.name));
        for (const Network& network : parsed.networks) {
            for (const Container* container : network.on(host.name)) {
                out += fmt::format("    {} [label={}];\n", dotText(host.name + "/" + container->name),
                                   dotText(container->name));
            }
        }
        out += "  }\n";
    }
    for (const Network& network : parsed.networks) {
        out += fmt::format("  {} [shape=ellipse, label={}];\n", dotText("network/" + network.name),
                           dotText(network.name + " " + headOf(network)));
        for (const Container& container : network.containers) {
            out += fmt::format("  {} -- {} [label={}];\n", dotText(container.host + "/" + container.name),
                               dotText("network/" + network.name), dotText(joined(container.addresses)));
        }
    }
    return out + "}\n";
}

Result<std::string> drawSvg(std::string_view graph) {
    WEFT_ASSIGN(const Graph parsed, parseGraph(graph));
    const std::vector<Column> columns = columnsOf(parsed);
    int width = columns.empty() ? kNarrow : columns.back().x + columns.back().width;
    for (const Network& network : parsed.networks) {
        width = std::max(width, kMargin + widthOf(network.name + "  " + headOf(network) + "  " + network.conflict));
    }

    const int hostsTop = kMargin + kTitle;
    int y = hostsTop + kHostHead;
    std::string bands;
    for (size_t i = 0; i < parsed.networks.size(); ++i) {
        const Network& network = parsed.networks[i];
        size_t rows = 1;
        for (const Host& host : parsed.hosts) rows = std::max(rows, network.on(host.name).size());
        const int height = kBandHead + static_cast<int>(rows) * kRow + kPad;
        const char* hue = kHues[i % kHues.size()];
        bands += svgBox(kMargin - kPad / 2, y, width - kMargin + kPad, height, "band",
                        fmt::format(" fill=\"{0}\" fill-opacity=\"0.16\" stroke=\"{0}\"", hue));
        bands += fmt::format(
            "<text x=\"{}\" y=\"{}\"><tspan class=\"name\">{}</tspan><tspan class=\"faint\" dx=\"8\">{}</tspan>"
            "<tspan class=\"bad\" dx=\"8\">{}</tspan></text>\n",
            kMargin + kPad, y + 18, escaped(network.name), escaped(headOf(network)), escaped(network.conflict));
        for (size_t h = 0; h < parsed.hosts.size(); ++h) {
            int top = y + kBandHead;
            for (const Container* container : network.on(parsed.hosts[h].name)) {
                const int left = columns[h].x + kPad;
                bands += svgBox(left, top, columns[h].width - 2 * kPad, kRow - 4, "chip");
                bands += svgText(left + kPad, top + 14, "name", container->name);
                bands += svgText(left + kPad, top + 29, "faint", joined(container->addresses));
                top += kRow;
            }
        }
        y += height + kGap;
    }

    std::string out = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\">\n"
        "<title>cluster {2}</title>\n",
        width + kMargin, y + kMargin, escaped(parsed.cluster));
    out += kStyle;
    out += svgText(kMargin, kMargin + 16, "title",
                   fmt::format("cluster {}: hosts {}, overlay networks {}", parsed.cluster, parsed.hosts.size(),
                               parsed.networks.size()));
    for (size_t h = 0; h < parsed.hosts.size(); ++h) {
        const Host& host = parsed.hosts[h];
        out += svgBox(columns[h].x, hostsTop, columns[h].width, y - hostsTop, "host",
                      host.gone() ? " stroke-dasharray=\"5 4\"" : "");
        out += svgText(columns[h].x + kPad, hostsTop + 20, "name", host.name);
        out += fmt::format(
            "<text x=\"{}\" y=\"{}\"><tspan class=\"faint\">{}</tspan><tspan class=\"{}\" dx=\"8\">{}</tspan></text>\n",
            columns[h].x + kPad, hostsTop + 38, escaped(host.address), kindOf(host), escaped(host.standing()));
    }
    return out + bands + "</svg>\n";
}

bool speaksUnicode() {
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
        const char* value = std::getenv(name);
        if (value == nullptr || *value == '\0') continue;
        const std::string_view locale = value;
        return locale.find("UTF-8") != std::string_view::npos || locale.find("utf8") != std::string_view::npos;
    }
    return false;
}

}  // namespace weft::ctl
