#include <doctest/doctest.h>

#include <initializer_list>
#include <stdexcept>
#include <vector>

#include "base/errors.hpp"
#include "base/threads.hpp"

using namespace overparam;

TEST_CASE("parallel_for visits every item once, for any number of threads") {
    for (int threads : {1, 2, 5, 64}) {
        for (Index count : {0, 1, 3, 1000}) {
            std::vector<int> visits(count);
            parallel_for(count, threads, [&](Index i) { ++visits[i]; });
            for (int v : visits) REQUIRE(v == 1);
        }
    }
    CHECK(default_threads() >= 1);
}

TEST_CASE("parallel_for rethrows what an item throws") {
    for (int threads : {1, 3}) {
        CHECK_THROWS_AS(parallel_for(100, threads,
                                     [](Index i) {
                                         if (i == 42) throw ArgumentError("item", "another", "42");
                                     }),
                        ArgumentError);
    }
}
