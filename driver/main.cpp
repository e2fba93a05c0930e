#include <cstdio>
#include <exception>

#include "driver/config.h"
#include "driver/daemon.h"

int main(int argc, char** argv) {
    using namespace weft::driver;
    try {
        const auto parse = [argc, argv] { return parseCommandLine(argc, argv); };
        const auto asked = parse();
        if (const auto* exit = std::get_if<Exit>(&asked)) {
            std::fputs(exit->text.c_str(), exit->status == 0 ? stdout : stderr);
            return exit->status;
        }
        return runDaemon(std::get<Config>(asked), parse);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "weftd: %s\n", error.what());
        return 1;
    }
}
