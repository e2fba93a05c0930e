#include <exception>
#include <iostream>

#include "ctl/command.h"
#include "ctl/table.h"

int main(int argc, char** argv) {
    try {
        return weft::ctl::runCommand(argc, argv, weft::ctl::wantsColour(), std::cout, std::cerr);
    } catch (const std::exception& error) {
        std::cerr << "weftctl: " << error.what() << '\n';
        return weft::ctl::kFailed;
    }
}
