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

TEST_CASE("exp is accurate to two units in the last place over the whole range of normal numbers") {
    const auto check = [](double start, double step) {
        Lanes x = lanes(0.0);
        for (int l = 0; l < LANES; ++l) x.set(l, start + 0.1 * l * step);
        const Lanes y = exp(x);
        for (int l = 0; l < LANES; ++l) {
            const double exact = std::exp(x[l]);
            REQUIRE(std::abs(y[l] - exact) <= 4.5e-16 * exact);
        }
    };
    for (int i = 0; i < 20000; ++i) check(-708.0 + 0.0708 * i, 0.0708);
    for (double tiny : {1e-300, 1e-17, 1e-9, 1e-3}) {
        check(tiny, tiny);
        check(-tiny, -tiny);
    }
    CHECK(exp(lanes(0.0))[4] == 1.0);
}

TEST_CASE("cos_sin agrees with the library in all quarters and for large arguments") {
    const auto check = [](double x) {
        Lanes c, s;
        cos_sin(lanes(x), c, s);
        for (int l : {0, LANES - 1}) {
            REQUIRE(std::abs(c[l] - std::cos(x)) < 3e-16);
            REQUIRE(std::abs(s[l] - std::sin(x)) < 3e-16);
        }
    };
    for (int i = -20000; i <= 20000; ++i) {
        check(1e-3 * i);
        check(49.99 * i);  // up to the limit of 1e6
        // Next to the zeros and to the borders between quarters.
        check(0.25 * M_PI * i);
        check(std::nextafter(0.25 * M_PI * i, 0.0));
    }
    // Relative to small sines, those of small arguments and those next to multiples of pi.
    for (double x : {1e-300, -1e-12, 1e-3, M_PI, -355.0, 103993.0 * 2.0}) {
        Lanes c, s;
        cos_sin(lanes(x), c, s);
        CHECK(std::abs(s[2] - std::sin(x)) <= 1e-15 * std::abs(std::sin(x)));
    }
}

TEST_CASE("cos_sin_quarters turns by quarters, which count modulo four") {
    for (int i = -400; i <= 400; ++i) {
        const double y = 0.25 * M_PI * i / 400.0;
        const double cosine[] = {std::cos(y), -std::sin(y), -std::cos(y), std::sin(y)};
        const double sine[] = {std::sin(y), std::cos(y), -std::sin(y), -std::cos(y)};
        for (std::uint64_t q : {0ULL, 1ULL, 2ULL, 3ULL, 4ULL, 7ULL, ~0ULL}) {
            Lanes c, s;
            cos_sin_quarters(words(q), lanes(y), c, s);
            REQUIRE(std::abs(c[6] - cosine[q % 4]) < 3e-16);
            REQUIRE(std::abs(s[6] - sine[q % 4]) < 3e-16);
        }
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
