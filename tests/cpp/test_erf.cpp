#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "math/erf.hpp"

using namespace overparam;

TEST_CASE("erf_root2 is erf(x / sqrt 2) to half a unit of 1e-15, and odd") {
    double worst = 0.0;
    for (long i = 0; i < 1200000; i += LANES) {
        Lanes x = lanes(0.0);
        for (int l = 0; l < LANES; ++l) x.set(l, 1e-5 * static_cast<double>(i + l));
        const Lanes y = erf_root2(x), mirrored = erf_root2(-x);
        for (int l = 0; l < LANES; ++l) {
            const long double exact = std::erf(static_cast<long double>(x[l]) / std::sqrt(2.0L));
            worst = std::max(worst, static_cast<double>(std::abs(exact - y[l])));
            REQUIRE(mirrored[l] == -y[l]);
        }
    }
    CHECK(worst < 5e-16);
}

TEST_CASE("erf_root2 at its ends") {
    CHECK(erf_root2(lanes(0.0))[2] == 0.0);
    CHECK(erf_root2(lanes(std::numeric_limits<double>::infinity()))[1] == 1.0);
    CHECK(erf_root2(lanes(-1e300))[7] == -1.0);
}
