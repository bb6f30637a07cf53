// Exceptions of the core; bind/module.cpp maps each of them to a Python exception.
#pragma once

#include <stdexcept>
#include <string>

namespace overparam {

// An argument that the caller can correct: its name, what it must be and what it was.
class ArgumentError : public std::invalid_argument {
  public:
    ArgumentError(const std::string& name, const std::string& must, const std::string& was)
        : std::invalid_argument(name + " must be " + must + ", but was " + was) {}
};

}  // namespace overparam
