// Runs all C++ tests. Exit status 0 if they pass, 1 otherwise.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
