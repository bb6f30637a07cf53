// Parallel loops. threads.cpp is the only file that names OpenMP.
#pragma once

#include <functional>

#include "base/types.hpp"

namespace overparam {

// Number of threads that OpenMP would use by itself.
int default_threads();

// Calls body(i) for every i in [0, count) on at most `threads` threads. Items must be independent:
// which thread runs which item is not fixed. The first exception thrown by an item is rethrown.
void parallel_for(Index count, int threads, const std::function<void(Index)>& body);

}  // namespace overparam
