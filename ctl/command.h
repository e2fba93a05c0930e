// weftctl's command line.
#pragma once

#include <iostream>

namespace weft::ctl {

enum ExitStatus : int {
    kDone = 0,
    kFailed = 1,   // weftd does not answer, or reports an error
    kMistake = 2,  // in the command line
    kTrouble = 3,  // doctor found something bad, or a repair failed
};

// Runs one command: its output to `out`, complaints to `err`, a key from `in`. `colour` for a terminal. Throws only
// what the standard library throws.
ExitStatus runCommand(int argc, const char* const* argv, bool colour, std::ostream& out, std::ostream& err,
                      std::istream& in = std::cin);

}  // namespace weft::ctl
