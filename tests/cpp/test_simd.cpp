#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "base/simd.hpp"

using namespace overparam;

TEST_CASE("log is accurate to two units in the last place from tiny to huge arguments") {
    for (double scale : {1e-300, 1e-16, 1.0, 1e16, 1e300}) {
        for (int i = 1; i < 20000; ++i) {
            Lanes x = lanes(0.0);
            for (int l = 0; l < LANES; ++l) x.set(l, scale * (i + 0.1 * l) / 10000.0);
            const Lanes y = log(x);
            for (int l = 0; l < LANES; ++l) {
                const double exact = std::log(x[l]);
                REQUIRE(std::abs(y[l] - exact) <= 4.5e-16 * std::abs(exact) + 1e-18);
            }
        }
    }
}

TEST_CASE("cos_sin_turns agrees with the library over the whole turn, ends included") {
    for (int i = 0; i <= 40000; ++i) {
        const double v = i / 40000.0;
        Lanes c, s;
        cos_sin_turns(lanes(v), c, s);
        REQUIRE(std::abs(c[3] - std::cos(2.0 * M_PI * v)) < 1e-15);
        REQUIRE(std::abs(s[3] - std::sin(2.0 * M_PI * v)) < 1e-15);
    }
}

TEST_CASE("sqrt, select, maximum, any and sum act lane by lane") {
    Lanes x = lanes(0.0);
    for (int l = 0; l < LANES; ++l) x.set(l, l * l);
    const Lanes r = sqrt(x);
    const Mask big = x > lanes(10.0);
    const Lanes chosen = select(big, lanes(1.0), lanes(-1.0));
    const Lanes top = maximum(x, lanes(10.0));
    for (int l = 0; l < LANES; ++l) {
        CHECK(r[l] == l);
        CHECK(chosen[l] == (l * l > 10 ? 1.0 : -1.0));
        CHECK(top[l] == std::max(l * l, 10));
    }
    CHECK(any(big));
    CHECK_FALSE(any(x > lanes(1e9)));
    CHECK(sum(x) == 140.0);
}

TEST_CASE("multiply_low ignores the high halves") {
    const Words w = words(0xdeadbeef00000003ULL);
    CHECK(multiply_low(w, 0xD2511F53u)[5] == 3ULL * 0xD2511F53u);
}
